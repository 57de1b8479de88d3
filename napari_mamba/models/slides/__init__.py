"""Networks that take the features of a slide's patches: bags and graphs."""
