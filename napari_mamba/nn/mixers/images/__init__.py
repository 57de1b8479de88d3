"""SS2D and its kin: scans of an image along rows, columns and windows."""
