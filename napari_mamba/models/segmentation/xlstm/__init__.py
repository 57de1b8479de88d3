"""Segmentation networks of mLSTM blocks: xLSTM-UNet and U-VixLSTM."""
