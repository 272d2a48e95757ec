"""Checkpoint dialects: how each framework names its tensors, and the spec that they imply.

assumptions: what neither a checkpoint nor the user says about the network
coco: COCO's class and keypoint names
dialect: the interface of a dialect
resnet: the stages of a ResNet by shapes
stored_names: class names beside the tensors of a file
shapes: shapes by name, with errors that name the tensor; tensor names by prefix and part
"""
