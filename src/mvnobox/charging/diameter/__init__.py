"""Diameter credit control: Gy and Ro (RFC 6733, RFC 8506, TS 32.299) in front of the ledger."""
