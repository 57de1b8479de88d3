"""Images of the kinds that bundles are for, and of others."""
