"""Checkpoint dialects, one file each: a name map plus the spec that the dialect implies."""
