"""Rewrites of an exported graph, one per file; each takes and changes an `onnx_ir.Model`."""
