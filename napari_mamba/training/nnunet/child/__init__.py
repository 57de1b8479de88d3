"""nnU-Net as a process of its own: how it is started, what it is asked, and what it does there."""
