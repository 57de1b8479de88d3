"""Predicting a dose: what each structure is to the bundle, and the run."""
