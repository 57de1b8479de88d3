"""What a network did: its scans' calls recorded, and where in the image their tokens lie."""
