"""A float graph with its ranges and rounding, from which any choice of layers is quantized."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from calib.calibration.photos import Photo, canvases, require_enough, unique_photos
from calib.calibration.run import PHOTOS, CalibrationSummary, calibrate, feed_inputs
from calib.calibration.table import Table, TableKey
from calib.calibration.tensorrt_cache import read_cache
from calib.calibration.work import multiply_adds, shapes_in_runs
from calib.context import Progress, RunContext, silent
from calib.graph.formats import Ranges
from calib.graph.layers import Layer, hidden_layers, names_of, weighted_layers
from calib.graph.placement import Placement
from calib.graph.presets import UNSCORED_ROLE, chosen_layers
from calib.options import QuantizeOptions
from calib.rounding.weights import WeightQuantizer
from calib.writers.registry import WRITERS, tensors_to_observe
from export.onnx_file import OnnxFile
from export.passes.half_precision import half_precision
from export.precision.formats import FP16
from maskport import __version__
from model.errors import ArtifactError
from runtime.artifacts.metadata import to_metadata

# Photos for counting multiply-adds, which depend on the number of detections.
_COUNTED_PHOTOS = 8


@dataclass(slots=True)
class Quantizer:
    """Made by `prepare`. Layers are named by their nodes, which every copy of the graph has.

    Attributes:
        model: the float graph.
        context: of the run.
        ranges: of activations.
        weights: rounds weights.
        photos: the usable ones, in order.
        table: None with an imported cache.
        summary: of the calibration; None with an imported cache.
    """

    model: ir.Model
    context: RunContext
    ranges: Ranges
    weights: WeightQuantizer
    photos: list[Photo]
    table: Table | None = None
    summary: CalibrationSummary | None = None
    _work: dict[str, int] | None = None

    @property
    def layers(self) -> list[Layer]:
        """All weighted layers of the float graph."""
        return weighted_layers(self.model.graph)

    @property
    def preset_nodes(self) -> set[str]:
        """Names of the layers that the preset quantizes."""
        return names_of(chosen_layers(self.layers, self.context.options.preset))

    def quantized(self, nodes: Collection[str]) -> tuple[ir.Model, Placement]:
        """A copy of the graph in which only those layers are quantized.

        Raises:
            ExportError: with `float_type="fp16"`, a weight exceeds FP16.
        """
        context = self.context
        copy = self.model.clone()
        if context.options.float_type == "fp16":
            half_precision(copy, FP16)
        layers = [layer for layer in weighted_layers(copy.graph) if layer.name in nodes]
        writer = WRITERS[context.writer]
        placement = writer.place(copy.graph, layers)
        writer.write(copy.graph, placement, context.format, self.ranges, self.weights)
        context.format.require_opset(copy)
        copy.metadata_props.update(self._metadata())
        return copy, placement

    def work_fraction(self, nodes: Collection[str]) -> float:
        """Fraction of all multiply-adds that those layers do, on the first photos."""
        if self._work is None:
            self._work = self._count_work()
        return sum(self._work[name] for name in nodes) / sum(self._work.values())

    def _count_work(self) -> dict[str, int]:
        layers = self.layers
        names = list({str(v.name): None for one in layers for v in (one.data, one.output)})
        batches = (c for _, c in canvases(self.photos[:_COUNTED_PHOTOS], self.context))
        work = dict.fromkeys((layer.name for layer in layers), 0)
        for shapes in shapes_in_runs(self.model, names, batches, self.context.threads):
            for layer in layers:
                work[layer.name] += multiply_adds(layer, shapes)
        if not any(work.values()):
            require_enough(0, self.context)
        return work

    def _metadata(self) -> dict[str, str]:
        """The same spec, a manifest with the precision, and how the file was quantized."""
        options, artifact = self.context.options, self.context.artifact
        suffix = "" if options.float_type == "fp32" else f"+{options.float_type}"
        manifest = replace(
            artifact.manifest,
            precision=f"{options.format}{suffix}",
            versions={**artifact.manifest.versions, "maskport": __version__},
        )
        facts = [
            self.context.writer,
            options.preset if options.budget is None else f"budget-{options.budget:g}",
            options.method if options.import_cache is None else "imported",
            "gptq" if options.uses_gptq else "nearest",
        ]
        if self.context.reduces_range:
            facts.append("reduced-range")
        pairs = to_metadata(artifact.spec, manifest)
        return {**pairs, "maskport.quantisation": " ".join(facts)}


def prepare(
    file: OnnxFile,
    photos: Sequence[str | Path | Photo],
    table: Path,
    options: QuantizeOptions,
    progress: Progress = silent,
) -> Quantizer:
    """Find the ranges, from photos or an imported cache, and collect the inputs that GPTQ needs.

    Args:
        file: a float32 file of maskport.
        photos: to calibrate on.
        table: path of the calibration table.
        options: how to quantize.
        progress: see `calib.quantize.quantize`.

    Raises:
        UsageError: too few usable photos, or a format that the writer cannot write.
        ArtifactError: nothing to quantize, a table that does not fit, a tensor that is not finite.
    """
    context = RunContext.of(file, options, progress)
    model = ir.serde.deserialize_model(file.model)
    chosen = chosen_layers(weighted_layers(model.graph), options.preset)
    if not chosen:
        raise ArtifactError(
            f"{file.artifact.path}: no layer to quantize; expected a Mask R-CNN of maskport export"
        )
    unique, writer = unique_photos(photos, context), WRITERS[context.writer]
    if options.import_cache is not None:
        names = [str(v.name) for v in writer.place(model.graph, chosen).ranges]
        largest = read_cache(options.import_cache, names)
        return Quantizer(model, context, lambda name, _: largest[name], WeightQuantizer(), unique)
    context.start(photo_runs(len(photos), options), "calibrating")
    context.advance(len(photos) - len(unique))
    hidden = hidden_layers(model.graph)
    # Of all hidden layers, so that one table serves every writer and every choice of layers.
    names = tensors_to_observe(model.graph, hidden)
    key = TableKey.of(file.artifact, file.sha256, options)
    filled = Table.load(table, key, names) if table.exists() else Table(key, names)
    summary = calibrate(model, unique, filled, table, context)
    used = [photo for photo in unique if photo.path not in context.skipped]
    require_enough(len(used), context)
    candidates = scored = chosen
    if options.budget is not None:
        candidates = hidden
        scored = [layer for layer in hidden if layer.role != UNSCORED_ROLE]
    filled.require_ranges(str(v.name) for v in writer.place(model.graph, scored).ranges)
    weights = WeightQuantizer(candidates if options.uses_gptq else ())
    if weights.readers:
        context.advance(min(len(photos), PHOTOS) - min(len(used), PHOTOS))
        feed_inputs(weights.readers, model, used, context)
    return Quantizer(model, context, filled.largest, weights, used, filled, summary)


def photo_runs(photos: int, options: QuantizeOptions) -> int:
    """How many photos `prepare` runs in total."""
    if options.import_cache is not None:
        return 0
    return photos + min(photos, PHOTOS) * options.uses_gptq
