"""Detections drawn on images.

overlay: masks, boxes, keypoints and labels on an image
keypoints: keypoints and limbs
source_image: the pixels of the image that detections were made from
"""
