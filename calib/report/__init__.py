"""Console output, JSON and plots of a quantization.

report: `QuantizeReport`, its lines and tables on the console, and `quantize.json`.
plots: sensitivity of groups, agreement by the fraction in 8 bits, tensor histograms.
tensor_stats: magnitudes and ranges of the quantized tensors.
"""
