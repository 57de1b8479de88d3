"""A slide's bag of features through a bundle's networks: scores, and the attention of each patch."""
