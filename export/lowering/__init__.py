"""How each target writes the network's two opaque operators, one file per way."""
