"""The commands, each with its options; what they do is beside this room."""
