"""Checkpoints of torchvision, and torchvision's own model as the reference."""
