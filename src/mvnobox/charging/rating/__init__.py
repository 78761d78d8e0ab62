"""Rating: what a use costs, and why. Pure: no database, no clock of its own; times and money come as arguments."""
