"""Layers that mix tokens along scan orders: S6 and what can take its place."""
