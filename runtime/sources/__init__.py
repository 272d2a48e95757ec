"""Photos from files, folders, lists, videos, cameras and network streams.

open: opens everything that a user can name as one `Source`
items: the `Source` protocol and its items
photos: decodes a file, a Pillow image or an array, and finds the photos of a folder
pillow: decodes with Pillow; the high byte of deeper pixels
foreign_format: the format of a file that is no readable photo
pixel_format: the channels that a model takes, and the range of values
bands: decodes photos of other channels than RGB, as they are stored
tiff: reads TIFF files of several bands
deep_png: reads 16-bit PNG files of several channels
decoded: a decoded photo, and the size limit
scaled_jpeg: JPEGs decoded at a fraction of their size
regular_file: opens regular files only
lists: text files with a path per line
live: names and opens cameras and network streams
video: decodes frames with PyAV, upright
container_end: detects truncated video files
stems: unique names for output files
"""
