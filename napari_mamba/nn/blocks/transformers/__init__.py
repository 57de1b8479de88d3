"""What scans took over from transformers: patches, perceptrons, attention in windows, SegFormer's stages."""
