"""Tables, plots and JSON of a quantization run."""
