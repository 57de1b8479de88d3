"""The module's widgets, its state in the scene, and what it asks of the application."""
