"""Feature extractors.

fpn: the feature pyramid
kept: a body that is the user's own module
mobilenet: torchvision's MobileNet-V3-large
norm: the normalization after a convolution
resnet: ResNet and ResNeXt, and the RoI stage of C4
"""
