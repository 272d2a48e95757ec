"""What people embed: photos in, `Detections` out. Importing it needs NumPy and Pillow only."""

from maskport import refuse_shadows

refuse_shadows()
