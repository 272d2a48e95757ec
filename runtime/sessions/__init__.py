"""Backends that run a network, one file each, behind one protocol.

session: the `Session` protocol, with the types of its inputs and outputs
open: opens a file with the backend of its suffix
file_hash: checks a file against an expected SHA-256
device: the processor names "cpu", "cuda" and "cuda:N"
onnxruntime: an ONNX file in ONNX Runtime, on the CPU, CUDA or TensorRT provider
tensorrt: a TensorRT or TensorRT-RTX engine with a pool of execution contexts
execution_context: one context with its own buffers, stream and CUDA graph
tensorrt_library: imports the TensorRT bindings and checks version and architecture
torch: a checkpoint in PyTorch
"""
