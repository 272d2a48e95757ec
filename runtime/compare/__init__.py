"""The only place that matches and scores results.

`matching` pairs the rows of two results and measures their differences; `limits` holds every
limit with its reason and lists what exceeds it; `decisions` says which outcomes of a run noise
can turn; `witness` excuses an excess only by such an outcome at that row, with `mask_witness` and
`keypoint_witness` for what score and box do not tell; `coco_ap` scores against labels, `agreement`
against the eager model's own detections.
"""
