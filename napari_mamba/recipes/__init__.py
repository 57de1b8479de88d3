"""What made the shipped bundles: train them again, go on with them, measure them."""
