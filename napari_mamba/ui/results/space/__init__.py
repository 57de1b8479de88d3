"""Where one looks: orientation, position, orthogonal slices, contrast by dragging, surfaces and figures."""
