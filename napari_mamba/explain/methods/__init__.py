"""What is computed from recordings and gradients: attention, states, relevance, receptive field."""
