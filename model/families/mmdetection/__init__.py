"""Checkpoints of MMDetection 1.x to 3.x, with the configuration stored in them.

config: parses the configuration's Python source
dialect: implements `Dialect`
meta: class names and normalization of the training
names: MMDetection's names for the network's tensors
settings: applies the configuration to a `ModelSpec`
spec: from shapes and metadata to a `ModelSpec`
"""
