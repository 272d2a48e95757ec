"""CUDA memory, streams and graphs without PyTorch."""
