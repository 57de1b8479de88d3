"""Parts of the widget "Look inside"."""
