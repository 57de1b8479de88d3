"""Networks for photographs taken to volumes by small layers between theirs."""
