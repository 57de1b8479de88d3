"""Time-invariant state spaces: S4 and H3 under their authors' own parameters, S4D and S5."""
