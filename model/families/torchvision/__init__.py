"""Checkpoints of torchvision, and torchvision's own model as the reference.

body: the body by names and shapes
dialect: implements `Dialect`
reference: torchvision's own model for a checkpoint
"""
