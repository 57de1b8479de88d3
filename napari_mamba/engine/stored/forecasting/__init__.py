"""What a run into a store will take, told before it."""
