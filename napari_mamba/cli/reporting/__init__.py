"""What a command tells: progress, tables, JSON lines for programs, and one line for a failure."""
