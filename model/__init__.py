"""The network: checkpoints read safely, a spec of all that decides the results, one forward.

`spec`, `spec_json`, `spec_options`, `errors` and `arrays` do not import torch.

arrays: NumPy array types
checkpoint: a weights file to spec and network
errors: the errors that users see, and parts of their messages
float32: thresholds for comparisons in float32
mask_rcnn: the network
ops: RoI pooling and NMS as opaque operators
placement: the window of each image on the canvas
spec_json: `ModelSpec` as JSON
spec_options: options and `--spec` files
spec_text: the fields of a spec as short text
supported: the supported models, with their references and tests
"""
