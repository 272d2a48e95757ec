"""The checks of `maskport doctor`: this machine, and a file.

checkpoint: a checkpoint
engine: an engine: manifest, hash, library, GPU
file: a file, by its suffix
finding: the result of a check
graph: an ONNX graph against each target
graph_rules: operators and shapes that a target cannot run
graph_view: nodes, small constants and types of a graph
machine: Python, packages, libraries, GPU
model_file: an ONNX file: integrity, origin, external data, graph
packages: installed packages and their versions
probe: runs a few lines of Python in a new process
"""
