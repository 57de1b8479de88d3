"""Networks that segment images alone."""
