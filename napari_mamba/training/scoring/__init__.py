"""How good an answer is: overlaps, distances, classification, their spread over people."""
