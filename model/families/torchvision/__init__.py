"""Checkpoints of torchvision, and torchvision's own model as the reference.

body: the body by names and shapes
dialect: implements `Dialect`
foreign_body: names a body that cannot be rebuilt from its weights
reference: torchvision's own model for a checkpoint
reference_body: torchvision's own bodies
"""
