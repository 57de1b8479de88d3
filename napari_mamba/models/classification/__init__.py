"""Published networks that return scores, one file each."""
