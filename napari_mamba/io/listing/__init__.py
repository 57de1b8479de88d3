"""What images there are in a place: one entry a series, from headers alone."""
