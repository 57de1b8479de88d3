"""What is learnt from: images, labels and people found, checked, prepared, kept on disk and drawn in patches."""
