"""Rewrites of an exported graph; each changes an `onnx_ir.Model` in place.

compact_heads: runs the mask and keypoint heads on valid detections only
drop_padding: drops -inf rows in front of a TopK
half_precision: converts to FP16 or BF16
narrow_integers: converts int64 arithmetic to int32
nodes: new nodes and constant values
opset_22: converts to opset 22
products_without_gemm: linear layers as convolutions
split_top_k: splits a TopK beyond TensorRT's limit
"""
