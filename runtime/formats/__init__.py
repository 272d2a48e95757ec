"""Results as files, one format per file.

result_writer: writes the chosen formats photo by photo
layout: the file names of every format
names: file names that are valid on every system
lock: one run at a time writes into a folder
resume: records and settings that `--resume` needs
jsonl: JSON Lines, one line per image; validates what it reads
coco: COCO results
rle: COCO run lengths by photo
crops: each detection cut out of the photo
yolo: YOLO segmentation labels
labelme: labelme annotation files
supervision: `supervision.Detections`
"""
