"""The stages of U-shaped networks: nnU-Net's, UNETR's and the light ones of MALUNet's descendants."""
