"""What keeps a bundle from answering wrongly: how familiar images look, and which bundle finds its field of view."""
