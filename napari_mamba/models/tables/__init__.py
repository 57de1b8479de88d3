"""Networks that see a row of a table beside volumes."""
