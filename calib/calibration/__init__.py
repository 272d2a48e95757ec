"""Activation ranges from photos.

photos: decoded and checked photos, batched into canvases.
run: feeds photos to the graph: to fill the table, and to collect layers' inputs.
activations: runs the graph and returns inner tensors, valid rows only.
table: observers' states in a JSON file, its key, and the checks that it fits.
tensorrt_cache: ranges from a calibration cache of TensorRT 8 or 10.
untrusted_text: reads text files with a size limit.
work: multiply-adds by layer, and the integer kernels of a written file.
cpu_session: ONNX Runtime on the CPU, for graphs in memory.
tapped_session: a session that also returns inner tensors.
"""
