"""Adapting a segmentation bundle to a few labelled images of one's own: fine-tuning in minutes.

`data/cases` finds images and labels, `targets/classes` decides what is learnt, `data/prepared` puts both on the grid
that the network sees, `data/samples` draws patches, `loss` counts known voxels alone, `validation` scores people that
were held out, `adapt` runs it all.
"""
