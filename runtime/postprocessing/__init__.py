"""Network outputs to detections in image coordinates; output checks."""
