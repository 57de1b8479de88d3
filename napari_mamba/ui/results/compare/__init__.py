"""Two layers against each other: side by side, in turn, as a difference and in numbers."""
