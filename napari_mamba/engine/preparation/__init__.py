"""What a volume goes through before a network, step by step, each step with what undoes it."""
