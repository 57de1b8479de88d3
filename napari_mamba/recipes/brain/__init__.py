"""`brain-structures-mr`: the recipe that learns from label maps, and from scans that a bundle has labelled."""
