"""Two layers registered, and ways to look at how well they lie on each other."""
