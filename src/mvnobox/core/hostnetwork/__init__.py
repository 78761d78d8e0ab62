"""A host network's stand-in for 4G: MME and serving gateway, cell and phone in one process. A test peer, not a network.

It speaks S6a (TS 29.272), S8-C (TS 29.274) and S8-U (TS 29.281) as a host network would. Between its own MME, gateway
and phone there is no protocol: no S1, no NAS, no radio, no roaming agreements.
"""
