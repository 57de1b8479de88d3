"""What is made of an answer that is on disk: its coarser levels, and the largest part of each label."""
