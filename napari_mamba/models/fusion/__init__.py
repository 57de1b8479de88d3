"""Networks that make one image of two registered ones."""
