"""Runs that wait, go on and are over; their time, what they are estimated by, and the thread that drives them."""
