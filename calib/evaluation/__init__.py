"""The quantized file against the reference on held-out photos."""
