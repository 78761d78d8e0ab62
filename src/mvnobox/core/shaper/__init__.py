"""Slowed lines beside a user plane that keeps no maximum bit rates: the kernel keeps them, as the CTF says."""
