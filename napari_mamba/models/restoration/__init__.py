"""Published networks that return an image, one file each."""
