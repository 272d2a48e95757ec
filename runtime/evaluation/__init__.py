"""`maskport evaluate`: detections of labeled photos, their numbers, and the report.

detect: the detections of an artifact on labeled photos; a run that can be resumed.
report: the lines and the file of an evaluation.
score: the numbers of detections, and what their errors cost.
"""
