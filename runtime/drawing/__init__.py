"""Detections drawn on images.

overlay: masks, boxes, keypoints and labels on an image
source_image: the pixels of the image that detections were made from
"""
