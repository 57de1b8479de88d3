"""Maps of uncertainty and evidence, and the scores of a classification."""
