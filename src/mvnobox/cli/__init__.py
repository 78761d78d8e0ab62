"""The `mvno` command: thin, calls the rooms that do the work."""
