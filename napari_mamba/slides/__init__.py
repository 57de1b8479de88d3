"""Bags of features: what an encoder made of a slide's patches, with the places where they were cut out."""
