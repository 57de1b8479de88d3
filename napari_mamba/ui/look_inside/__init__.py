"""The dock widget "Look inside": how a model went through an image, drawn beside it.

`model.py` is what is chosen and shown, without a window; `requests.py` the work behind a click; the rest draws.
"""
