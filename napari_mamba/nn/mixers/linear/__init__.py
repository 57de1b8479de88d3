"""Time-invariant state spaces under their authors' own parameters: S4 and H3."""
