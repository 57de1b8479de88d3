"""How familiar images look to the shipped bundles: fitting it, and measuring it on people and sources left out."""
