"""The exported file against eager PyTorch.

check: compares a new file with its reference on one photo
eager_variants: the eager model again with another rounding
network_reference: our network in eager PyTorch
torchvision_reference: torchvision's own model
"""
