"""A simulated 5G core for machines that cannot run Open5GS. It says of itself everywhere that it is a simulation."""
