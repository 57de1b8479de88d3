"""Which cases there are: from files, folders, patterns, BIDS datasets and CSV lists."""
