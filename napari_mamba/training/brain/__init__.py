"""`brain-structures-mr`: the recipe that learns from label maps alone."""
