"""`hippocampus-mr`: anterior and posterior hippocampus in a T1-weighted MR crop."""
