"""CUDA without PyTorch.

driver: memory, streams, events and graphs through cuda-python
array_interface: imports and exports device arrays without a copy
"""
