"""The quantized file against the reference on held-out photos.

rows: one row per precision: FP32, FP16, BF16, 8 bits, 8 bits within a budget.
measure: agreement, COCO AP, time and worst photo of one session.
agreement: agreement AP of detections with a reference's.
photos: the held-out photos and their annotations.
reference: the session to agree with: the input graph, another file or a checkpoint.
half_emulation: sessions for quantized graphs; FP16 and BF16 emulated, and whether values fit.
"""
