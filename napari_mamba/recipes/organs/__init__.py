"""`organs-headneck-ct`: seven organs at risk from the planning CT alone."""
