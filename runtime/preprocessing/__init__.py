"""Photos to the network's input canvas.

`bilinear_kernel.h` is the C kernel, without Python; `_bilinear.c` its Python bindings.

canvas: the resize rules, placement and padding
canvas_selection: the choice among several fixed canvases
torch_bilinear: torch's resize, with the C kernel if it was built
opencv_bilinear: OpenCV's resize, of MMDetection's models
skimage_bilinear: scikit-image's resize, of Matterport's models
"""
