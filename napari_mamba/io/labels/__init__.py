"""Label maps in files: their values, the names, colours and codes of their classes, and segments that overlap."""
