"""The core side: the subscriber directory and the simulated 5G core."""
