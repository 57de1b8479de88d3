"""`adrenal-shape`: is an adrenal gland normal or hyperplastic, told from its mask."""
