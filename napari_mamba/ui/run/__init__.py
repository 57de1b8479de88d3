"""The dock widget that runs models: what is chosen and queued are plain models, the widgets draw them."""
