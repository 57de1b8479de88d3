"""How familiar an image looks to a bundle: said before the run, from the image, and after it, from the network."""
