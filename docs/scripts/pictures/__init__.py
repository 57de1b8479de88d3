"""Pictures of the real program for the documentation: a person who clicks, and what is clicked."""
