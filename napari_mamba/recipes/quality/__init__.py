"""`mr-quality`: which artefact, if any, spoils an MR scan."""
