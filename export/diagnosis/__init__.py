"""The checks of `maskport doctor`: this machine, and a file.

file: a file, by its suffix; checkpoints and engines
finding: the result of a check
graph: an ONNX graph against each target: the operators and shapes that it cannot run
graph_view: nodes, small constants and types of a graph
machine: Python, packages, libraries (each in its own process), GPU
model_file: an ONNX file: integrity, origin, external data, graph
packages: installed packages and their versions
"""
