"""Checkpoints of detectron2: `.pth` and model zoo `.pkl`, with their configuration."""
