"""`heart-mr`: the left ventricle's cavity and wall in short-axis cine MR."""
