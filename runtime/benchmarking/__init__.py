"""`maskport benchmark`: artifacts side by side, each in a child process, called in turn.

passes: the passes over the photos: detect, timed calls in turn, stream.
artifact_process: the parent's handle of a child process that runs one artifact.
worker: the child process: opens an artifact, serves requests over a pipe, measures memory.
timings: percentiles of the stages of one artifact's calls.
quality: COCO AP of results against labels or against the first artifact.
report: the table, the JSON document, and the bars of each artifact's stages.
"""
