"""How gradients change weights."""
