"""Networks that segment volumes only, beside those of the room above."""
