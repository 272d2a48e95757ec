"""The network's heads and what they need of boxes and anchors.

box: pooled features to class logits and box deltas
box_coding: deltas to boxes, and the filter by size
kept: heads that are the user's own modules
keypoint: one heatmap per keypoint and detection
mask: one mask per detection, of the predicted class
rpn: the best proposals of all levels, after NMS
selection: logits and deltas to the best detections, after NMS
"""
