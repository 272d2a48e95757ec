"""8-bit weights: scales and codes.

weights: `WeightQuantizer`: scales per output channel, codes by GPTQ or to the nearest.
gptq: GPTQ rounding of a weight matrix, and the Hessian of its inputs.
vnni: whether this CPU's int8 kernels saturate their sums at 16 bits.
"""
