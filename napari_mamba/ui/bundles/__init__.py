"""The dock widget that lists, imports and removes bundles."""
