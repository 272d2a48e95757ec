"""8-bit weights: scales and codes.

weights: `WeightQuantizer`: scales per output channel, codes by GPTQ or to the nearest.
gptq: GPTQ rounding of a weight matrix.
hessian: second moments of a layer's inputs, which GPTQ needs.
vnni: whether this CPU's int8 kernels saturate their sums at 16 bits.
"""
