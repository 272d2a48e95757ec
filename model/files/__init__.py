"""Readers of untrusted files: weights, pickled arrays, configurations.

keras_h5: Keras' HDF5 weights
numpy_pickle: a pickle of plain data and NumPy arrays, without unpickling it
pickle_limits: depth and size of a pickle's tuples
pickled_array: NumPy values from the parts of a pickle
stored_spec: the spec in the header of a `.safetensors`
torch_placeholders: inert placeholders for a training's Python objects
weights_file: tensors and hash of a weights file of any format
wrappings: a network's tensors in a file, whatever wraps them
yaml_config: a framework's YAML configuration
zoo_pickle: detectron2's zoo files
"""
