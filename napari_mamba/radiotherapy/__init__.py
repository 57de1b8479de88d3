"""Radiotherapy: doses, the structures they are judged by, and the field's own files."""
