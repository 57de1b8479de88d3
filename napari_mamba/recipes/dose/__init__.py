"""`dose-headneck-ct`: the dose of a head-and-neck plan from the CT and its structures."""
