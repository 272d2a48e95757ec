"""Masks: pasting, run lengths, polygons.

`rle_kernel.h` is the C kernel, without Python; `_rle.c` its Python bindings.

paste: mask probabilities to exact binary crops
axes: the pixels of each box and the mask cells that they interpolate, by paste rule
rle_from_masks: mask probabilities to COCO run lengths, with the C kernel if it was built
rle: COCO run lengths of a crop: encode, decode, area
boundary: the edges between foreground and background, linked to rings
polygons: outlines of masks as polygons with holes
simplify: Douglas-Peucker simplification of many rings
pixel_rings: rings over a mask's own pixels, for readers that paint the outlines of polygons
bridges: the shortest ways between the pieces of a mask
"""
