"""Results as files, a format each, and `sink`, which writes them photo by photo."""
