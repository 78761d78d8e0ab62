"""The charging trigger function: a PFCP proxy on N4 that turns usage into Nchf requests and credit into forwarding."""
