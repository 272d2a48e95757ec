"""Checkpoints of Matterport's Mask R-CNN (Keras `.h5`).

dialect: implements `Dialect`
tensors: from Keras' layout to the network's
"""
