"""Engine builds: one builder, and an adapter for each of NVIDIA's two libraries.

builder: parses, checks the types, configures and compiles
inspection: the data types of a built engine
library: the adapter of a target
messages: the library's messages, reduced to one error
options: the options of a build
progress: the library's nested phases as one fraction
rtx: the adapter of TensorRT-RTX, for named architectures without a GPU
tensorrt: the adapter of TensorRT, for the local GPU
"""
