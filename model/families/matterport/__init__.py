"""Checkpoints of Matterport's Mask R-CNN (Keras `.h5`)."""
