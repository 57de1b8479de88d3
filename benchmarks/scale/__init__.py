"""Runs out of core and on several processes: memory, time, what they survive."""
