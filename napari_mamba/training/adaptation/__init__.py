"""Adapting a segmentation bundle to a few labelled images of one's own: fine-tuning in minutes.

`cases` finds images and labels, `classes` decides what is learnt, `prepared` puts both on the network's grid, `samples`
draws patches, `loss` counts known voxels alone, `validation` scores people that were held out, `adapt` runs it all.
"""
