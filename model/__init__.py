"""The network: a checkpoint read safely, a spec that says what decides the numbers, one forward.

`spec` and `errors` are free of torch; everything else here needs it.
"""
