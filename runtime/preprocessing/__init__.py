"""Photo to network canvas: canvas selection, resizing, normalization."""
