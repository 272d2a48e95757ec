"""Half precision: the policy, the formats, and the emulator that measures their error.

check: checks a file in half precision on one photo
emulator: a float32 graph that rounds like half precision
formats: FP16 and BF16
linear_layers: 1 x 1 convolutions as matrix products, for a CPU
policy: which nodes compute in half precision
ranges: overflow and subnormals per tensor
rounding: rounding to half precision by float32 arithmetic
session: runs a file under emulation
"""
