"""How each target writes the network's two opaque operators, pooling and NMS.

arithmetic: the sample arithmetic of `model.pooling` as graph nodes
fixed_point_nms: NMS as iterations over a suppression matrix
integral_pool: PrRoIPool by matrix products
level_pool: pooling on one level
native: the lowering for TensorRT: static shapes
packed_pool: pooling by one GridSample on a canvas of all levels
standard: the lowering for ONNX Runtime and OpenVINO: dynamic shapes
table: the translation table for torch.onnx
values: constants, types and the level choice
"""
