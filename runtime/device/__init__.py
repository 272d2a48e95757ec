"""Inference on frames in GPU memory: device arrays in, device arrays out, on one CUDA stream.

predictor: `DevicePredictor`, the entry point, and the sessions that it opens
frames: checks the frames of a call and groups them by size
resize: uint8 frames to the network's canvas
taps: source pixels and weights of every resize, as host tables
results: network outputs in canvas pixels to each frame's pixels
keypoints: heat maps to keypoints
paste: M x M mask probabilities to dense masks
select: `Selection` on the device
detections: `DeviceDetections`, the results of a batch
library: operations that the array API leaves to PyTorch, CuPy and NumPy
workspace: tables and canvases that later calls reuse
"""
