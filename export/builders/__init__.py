"""Engines out of ONNX files: one builder, and an adapter for each of NVIDIA's two libraries."""
