"""Quantization: calibration on photos, and 8 bits written into exported graphs.

quantize: `maskport quantize`, and the function behind it.
cli: its options, and the checks before calibration starts.
options: `QuantizeOptions`.
context: what the stages of one run share: source, options, photos, progress.
quantizer: `Quantizer`: a float graph with ranges and rounding, written for any choice of layers.

calibration/: activation ranges from photos.
graph/: which layers and tensors become 8-bit.
rounding/: scales and codes of weights.
observers/: from a tensor's values to its range.
writers/: Q/DQ pairs for TensorRT and for ONNX Runtime.
search/: the layers to quantize within an accuracy budget.
evaluation/: the quantized file against a reference on held-out photos.
report/: console output, JSON and plots.
"""

from maskport import refuse_shadows

refuse_shadows()
