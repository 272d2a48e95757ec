"""Metadata and integrity of exported files.

metadata: spec and manifest inside an ONNX file
checksum: the checksum at the end of an ONNX file
engine_manifest: the manifest beside an engine, with its hash
"""
