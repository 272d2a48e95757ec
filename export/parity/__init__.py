"""The exported file against eager PyTorch: references and the comparison."""
