"""What the module MambaImaging is made of, without Qt and without its widget.

Nothing here imports torch, numpy or `slicer` when it is imported: that happens in the functions that need them.
"""
