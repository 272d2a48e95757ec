"""A live module, with all that it decides, instead of a checkpoint.

`read.read_live` takes a torchvision `GeneralizedRCNN` and gives a `LiveModel`, which can be used
as a `model.checkpoint.Checkpoint`. Every number is from the instance, so nothing is assumed.

- `read`: a live module to spec and network
- `builder`: the user's code that builds the module, and its weights
- `copying`: a float32 copy on the CPU, which leaves the user's object as it is
- `faces`: classes and methods that must be torchvision's, and what a kept part must return
- `layers`: whether the layers of two modules are the same
- `parts`: which parts become the network's own layers, and which are kept
- `settings`: transform, anchors, thresholds and poolers to the fields of a spec
- `wrappers`: the detector inside other modules
"""
