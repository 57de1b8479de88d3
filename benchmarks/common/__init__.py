"""What the rooms share: how a GPU is timed, and the report."""
