"""Q/DQ writers: one per kind of runtime, from one table."""
