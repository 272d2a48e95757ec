"""A live module, with all that it decides, instead of a checkpoint.

`read.read_live` takes a torchvision `GeneralizedRCNN` and gives a `LiveModel`, which can be used
as a `model.checkpoint.Checkpoint`. Every number is from the instance, so nothing is assumed.

read: a live module to spec and network
backbone: body and pyramid: our layers, or kept
builder: the user's code that builds the module, and its weights
copying: a float32 copy on the CPU, which leaves the user's object as it is
faces: classes and methods that must be torchvision's, and what a kept part must return
heads: RPN, box, mask and keypoint head: our layers, or kept
layers: whether the layers of two modules are the same
settings: transform, anchors, thresholds and poolers to the fields of a spec
source: a live module, its builder or a checkpoint, behind one function
wrappers: the detector inside other modules
"""
