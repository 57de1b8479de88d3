"""Networks that take noise off step by step, and the steps."""
