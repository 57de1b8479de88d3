"""What a task makes of the blended slices: one file a kind of answer, chosen by the bundle's task."""
