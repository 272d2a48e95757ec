"""Thin wrappers of the libraries that run a network, one file each."""
