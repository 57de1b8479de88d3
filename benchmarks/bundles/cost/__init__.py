"""What a shipped bundle takes: seconds, memory, and what smaller tiles cost."""
