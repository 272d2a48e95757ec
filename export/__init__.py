"""From a checkpoint to a deployable file: ONNX export, engine builds, checks.

cli_graph_options: the graph options of `maskport export`
cli_spec_options: command-line options for spec fields that a checkpoint does not hold
convert: the command `maskport convert`, to .safetensors
doctor: the command `maskport doctor`, which checks the machine and files
engine: the command `maskport engine`, and `build_engine`
inspect: the command `maskport inspect`, which describes a file
onnx: the command `maskport export`, and `export_onnx`
onnx_file: reads and checks ONNX files
onnx_report: the result of an export
roles: tags every node with its part of the network
targets: the export targets, and what each needs from the graph
tracing: from the network to an ONNX graph, through torch.export
"""

from maskport import refuse_shadows

refuse_shadows()
