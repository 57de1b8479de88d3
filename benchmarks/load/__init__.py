"""Many runs in one process, and many clients at once."""
