"""Checkpoints of detectron2: `.pth` and model zoo `.pkl`, with or without their configuration.

dialect: implements `Dialect`
lazy_config: the YAML of LazyConfig, by the keys of the other configurations
names: detectron2's names for the network's tensors
norms: the normalization after each convolution
settings: defaults, base files and the user's YAML
spec: from settings and shapes to a `ModelSpec`
"""
