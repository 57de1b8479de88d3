"""The commands for radiotherapy: their options."""
