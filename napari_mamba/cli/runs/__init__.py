"""What is no single image: slides, films, features of patches, a beating heart, two images registered."""
