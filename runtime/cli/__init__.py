"""Shared by all commands.

console: exit statuses, error lines, argument types, progress.
photo_options: options of photos that are not 8-bit RGB.
photo_progress: progress of a stream of photos, on a terminal or as JSON lines.
image_ids: COCO image ids for the photos of a command.
next_command: the last line of every command, the next command to run.
spec_options: options for the spec of a checkpoint.
overwrite_guard: a command must not overwrite the files that it reads.
figure: matplotlib figures: the optional import, set-up and saving.
"""
