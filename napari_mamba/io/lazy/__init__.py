"""Images whose values stay on disk until they are indexed: opened, and seen as arrays in other orders and parts."""
