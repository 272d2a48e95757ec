"""Compare and score results: against the eager model, labels or each other.

result_protocol: the interface of a result that can be compared or scored.
matching: matches the rows of two results and measures their differences.
limits: every limit with its reason, and the check that lists what exceeds it.
half_limits: the same for files in half precision: how many eager rows they reproduce.
differences: the differences of matched rows, by quantity.
noise: how much rounding alone changes a model's results, and limits that allow for it.
noise_check: checks results against eager, and those of a noisy model against eager's own noise.
borderline: which discrete decisions of a run (NMS, top-k, levels) noise can change.
attribution: attributes a difference beyond its limit to a near tie of the eager run.
top_k_cut: rows that enter or leave at the top-k cut, because of another row.
mask_attribution: near ties that explain a mask alone.
keypoint_attribution: near ties that explain a keypoint alone.
agreement: COCO AP with the eager model's detections as ground truth.
ap_losses: what each kind of error costs in AP50, after TIDE.
coco_ap: COCO's standard numbers of boxes, masks and keypoints.
coco_evaluators: hotcoco and pycocotools, from inputs to accumulated precision and recall.
coco_inputs: annotations and results in the form that every evaluator reads alike.
"""
