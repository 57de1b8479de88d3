"""How each map by name is made: of a layer, of a voxel, of an answer."""
