"""What a run tells: its events, its times, its warnings, one share for the whole."""
