"""Which layers become 8-bit: layers, groups, presets, Q/DQ placement."""
