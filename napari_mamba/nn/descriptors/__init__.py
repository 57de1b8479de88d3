"""Numbers that describe a shape or a scan beside what a network learns of it."""
