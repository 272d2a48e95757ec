"""Checkpoints of MMDetection 1.x to 3.x, with their configuration."""
