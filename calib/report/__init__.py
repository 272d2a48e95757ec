"""Console output, JSON and plots of a quantization.

report: `QuantizeReport`, its lines on the console, and `quantize.json`.
tables: evaluation rows as aligned text.
plots: sensitivity of groups, agreement by the fraction in 8 bits, tensor histograms.
tensor_stats: magnitudes and ranges of the quantized tensors.
"""
