"""Published networks that return a displacement, one file each."""
