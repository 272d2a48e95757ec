"""COCO annotation files as tools write them, as one clean document; checked before any photo runs.

labeled_photos: `find_labeled_photos`: a file and a folder, to the photos that are there.
labels: `labels_for`: those and a model, to ground truth.
coco_file: the JSON file: its images, annotations and categories.
ids: ids as whole numbers or strings, and references to them.
values: numbers, missing values and their display in messages.
photo_files: the files of the images, by the paths that tools write.
photo_sizes: the photos' sizes, compared with those in the file.
categories: categories matched with the model's classes, by name or by id.
objects: one annotation with all fields that COCO AP reads.
keypoint_order: keypoints in the model's order, by their names.
segmentations: polygons and run lengths as compressed run lengths.
plausibility: objects that are valid but unlikely.
"""
