"""Radiotherapy in napari: doses over the CT, histograms, goals, and predicted doses."""
