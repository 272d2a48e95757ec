"""The layers to quantize within an accuracy budget.

search: `choose_layers`: sensitivity, then the search.
sensitivity: the accuracy lost by quantizing each group of layers alone.
sqnr: signal-to-quantization-noise ratio at the predictors' inputs.
budget: bisection over the number of groups that stay in floating point.
"""
