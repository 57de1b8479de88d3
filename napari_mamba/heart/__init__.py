"""A beating heart: its cine series, its volume over the beat, and what is read off that."""
