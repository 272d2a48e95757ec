"""Write Q/DQ pairs and 8-bit weights into the graph.

registry: the writers by name, and which one a file's target needs.
tensorrt: int8 or FP8, zero point 0, biases in floating point.
onnxruntime: uint8 activations and int32 biases, for integer kernels on a CPU.
pairs: a Q/DQ pair on a tensor, weights behind a DequantizeLinear.
"""
