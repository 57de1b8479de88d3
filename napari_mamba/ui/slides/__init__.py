"""A slide's scores beside its thumbnail: each patch a square in the colour of its attention, and a table."""
