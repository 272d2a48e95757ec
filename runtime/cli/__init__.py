"""What the commands share: console, progress, resuming, overwrite protection."""
