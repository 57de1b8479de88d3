"""Dose-volume histograms: the curves, the numbers read off them, goals they are judged by, and their files."""
