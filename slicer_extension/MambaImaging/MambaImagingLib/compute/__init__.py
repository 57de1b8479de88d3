"""Where runs are computed: processes, servers, what they say, and what is there."""
