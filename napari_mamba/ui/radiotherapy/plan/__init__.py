"""What a planner looks at: isodoses, histograms, goals, two doses against each other."""
