"""Diameter on the wire (RFC 6733): messages and AVPs, for whoever speaks it. A leaf."""
