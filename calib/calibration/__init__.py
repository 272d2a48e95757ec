"""Activation ranges from photos.

photos: decoded and checked photos, batched into canvases.
run: feeds photos to the graph and fills the table.
activations: runs the graph and returns inner tensors, valid rows only.
layer_inputs: feeds layers' inputs on a few photos to their readers.
table: the calibration table: observers' states in a JSON file, so that runs can be resumed.
table_key: the model, preprocessing and method that a table belongs to.
tensorrt_cache: ranges from a calibration cache of TensorRT 8 or 10.
untrusted_text: reads text files with a size limit.
work: multiply-adds by layer, and the integer kernels of a written file.
cpu_session: ONNX Runtime on the CPU, for graphs in memory.
tapped_session: a session that also returns inner tensors.
"""
