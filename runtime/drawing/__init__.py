"""Detections drawn on photos."""
