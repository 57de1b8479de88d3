"""Frames of networks that restore images: SwinIR's, Restormer's, and the block of MambaIR."""
