"""What the commands for doses, their histograms and contours do."""
