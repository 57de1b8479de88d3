"""What the formats share: places and headers, frames, colours, writing beside and renaming, checks of damage."""
