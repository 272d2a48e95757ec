"""Network outputs to detections in original-image pixels.

output_checks: checks outputs against the spec
from_raw: one image's outputs to `Detections`, in the image's own pixels
keypoints: heat maps to keypoints
bicubic: torch's bicubic resize of heat maps, cell by cell
certificate: whether the graph certified a result, and what to do if not
"""
