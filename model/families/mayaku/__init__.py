"""Checkpoints of mayaku 2: detectron2's networks on torchvision's ResNets, with the configuration.

dialect: implements `Dialect`
names: mayaku's names to detectron2's
"""
