"""The layers to quantize within an accuracy budget.

search: `choose_layers`: sensitivity, then the search.
sensitivity: accuracy lost, and noise added, by quantizing each group of layers alone.
budget: bisection over the number of groups that stay in floating point.
"""
