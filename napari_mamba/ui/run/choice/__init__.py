"""What a run is made of: layers or files, options, a region; and the same as a script. No Qt."""
