"""What `napari_mamba.training.nnunet` calls of nnU-Net 2.8, with files and hooks as there, and next to nothing behind.

Tests run the guide, its processes and its trainers on this where nnU-Net is not installed; `test_with_nnunet.py` runs
them on nnU-Net itself. There is one plan whatever the images are; they are learnt from whole, padded to the patch.
"""
