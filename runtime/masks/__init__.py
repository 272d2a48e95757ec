"""Masks: pasting, run lengths, polygons.

`rle_kernel.h` is the C kernel, without Python; `_rle.c` its Python bindings.

paste: mask probabilities to exact binary crops
axes: the pixels of each box and the mask cells that they interpolate, by paste rule
rle_from_masks: mask probabilities to COCO run lengths, with the C kernel if it was built
rle: COCO run lengths of a crop: encode, decode, area
polygons: outlines of masks as polygons with holes
simplify: Douglas-Peucker simplification of many rings
join_rings: rings joined into one, for formats without holes
"""
