"""What is done to weights between training and a bundle: growing, balancing, writing."""
