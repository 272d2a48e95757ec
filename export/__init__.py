"""From a checkpoint to a deployable file: lowering, graph passes, checks."""

from maskport import refuse_shadows

refuse_shadows()
