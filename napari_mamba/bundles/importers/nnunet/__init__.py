"""Results of nnU-Net, of its second version and its first, and of networks trained by them."""
