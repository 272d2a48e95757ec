"""Metadata, checksum and manifest of an exported file."""
