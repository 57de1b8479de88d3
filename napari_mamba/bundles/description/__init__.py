"""`bundle.json` as text: typed access to its fields, reading, writing."""
