"""Calibration on photos, and 8 bits written into exported graphs."""

from maskport import refuse_shadows

refuse_shadows()
