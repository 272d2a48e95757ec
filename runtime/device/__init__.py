"""Frames and results that stay on a GPU: device arrays in, device arrays out, on one stream.

`frames` reads what a caller gives, `resize` brings it to the canvas, `results` the network's
answer to the frame, `paste` the masks; `predictor` is the way in. `library` holds what the array
API leaves to PyTorch, CuPy and NumPy, `taps` the index tables, which are made on the host from
sizes alone, `workspace` what is kept from call to call. `arrays` shows addresses to other
libraries, `keypoints` decodes heat maps.
"""
