"""Calibration and quantisation of exported graphs; its commands are still to come."""

from maskport import refuse_shadows

refuse_shadows()
