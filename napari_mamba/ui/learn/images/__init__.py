"""What is learnt from: layers of a window as images with their channels, labels and people, and as files."""
