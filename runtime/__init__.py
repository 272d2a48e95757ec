"""The runtime that programs embed: photos in, `Detections` out; needs NumPy and Pillow only.

predictor: opens artifacts and predicts photos
stages: the stages of a call: decode, preprocess, network, results
stream: many photos, with all stages running at the same time
detections: the detections of one image
selection: selects rows by score, class, area and rank
boxes: box arithmetic
files: files that are written completely or not at all
whole_numbers: checks of options that are counts
closing: base class of context managers
predict: `maskport predict`
evaluate: `maskport evaluate`, COCO AP
benchmark: `maskport benchmark`, artifacts compared
"""

from maskport import refuse_shadows

refuse_shadows()
