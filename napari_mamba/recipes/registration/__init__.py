"""`brain-register-mr`: two brains of any MR contrast onto each other, by a velocity field."""
