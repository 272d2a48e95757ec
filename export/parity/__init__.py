"""The exported file against eager PyTorch.

check: compares a new file with its reference on one photo
network_reference: our network in eager PyTorch
torchvision_reference: torchvision's own model
"""
