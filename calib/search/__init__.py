"""The layers to quantize within an accuracy budget.

search: `choose_layers`: sensitivity, then a bisection over the groups kept in floats.
sensitivity: accuracy lost, and noise added, by quantizing each group of layers alone.
"""
