"""A float graph, its ranges and its rounding: all that it takes to write any choice of layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from calib.calibration.layer_inputs import PHOTOS, show_inputs
from calib.calibration.photos import Skipped, canvases, require_enough
from calib.calibration.run import CalibrationRun, calibrate, without_copies
from calib.calibration.table import Table
from calib.calibration.table_key import TableKey
from calib.calibration.tensorrt_cache import read_cache
from calib.calibration.work import multiply_adds, shapes_in_runs
from calib.evaluation.half_emulation import half_rest
from calib.graph.formats import FORMATS, INT8_REDUCED, Format
from calib.graph.layers import Layer, weighted_layers
from calib.graph.placement import Placement
from calib.graph.presets import UNJUDGED_ROLE, chosen_layers
from calib.options import QuantizeOptions
from calib.rounding.learned import LearnedRounding
from calib.rounding.vnni import sums_saturate
from calib.rounding.weights import Rounder, round_to_nearest
from calib.writers.pairs import Ranges
from calib.writers.registry import WRITERS, tensors_to_observe, writer_for
from export.onnx_file import OnnxFile
from maskport import __version__
from model.errors import ArtifactError
from runtime.artifacts.metadata import Artifact, to_metadata

Advance = Callable[[int], None]

# Photos by which multiply-adds are counted: those of the heads hang on what is found.
_COUNTED_PHOTOS = 8


@dataclass(slots=True)
class Job:
    """Made by `prepare`. Layers are named by their nodes, which every copy of the graph has.

    `used` are the photos that could be used, in order; `table` and `run` are None where ranges were
    imported.
    """

    file: OnnxFile
    model: ir.Model
    writer: str
    options: QuantizeOptions
    ranges: Ranges
    rounder: Rounder
    used: list[Path] = field(default_factory=list)
    table: Table | None = None
    run: CalibrationRun | None = None
    skipped: list[str] = field(default_factory=list)
    _work: dict[str, int] | None = None

    @property
    def artifact(self) -> Artifact:
        """Of the float file."""
        return self.file.artifact

    @property
    def format(self) -> Format:
        """What layers are quantised to."""
        return INT8_REDUCED if self.reduces_range else FORMATS[self.options.format]

    @property
    def reduces_range(self) -> bool:
        """Whether weights have 7 bits; see `calib.rounding.vnni`."""
        asked = self.options.reduce_range
        if self.options.format != "int8" or asked is not None:
            return bool(asked)
        return self.writer == "onnxruntime" and sums_saturate()

    @property
    def layers(self) -> list[Layer]:
        """All weighted layers of the float graph."""
        return weighted_layers(self.model.graph)

    @property
    def default_choice(self) -> set[str]:
        """Names of the layers' nodes that the policy quantises."""
        chosen = chosen_layers(self.layers, self.options.preset)
        return {str(layer.node.name) for layer in chosen}

    def quantised(self, choice: Collection[str]) -> tuple[ir.Model, Placement]:
        """A copy of the graph in which those layers, and no others, are quantised."""
        copy = self.model.clone()
        if self.options.rest == "fp16":
            half_rest(copy)
        layers = [one for one in weighted_layers(copy.graph) if one.node.name in choice]
        writer = WRITERS[self.writer]
        placement = writer.place(copy.graph, layers)
        writer.write(copy.graph, placement, self.format, self.ranges, self.rounder)
        self.format.require_opset(copy)
        copy.metadata_props.update(self._metadata())
        return copy, placement

    def share(self, placement: Placement) -> float:
        """Part of all multiply-adds whose data and weights are quantised, on the first photos."""
        work = self._work_of_layers()
        done = sum(work[str(layer.node.name)] for layer in placement.layers)
        return done / sum(work.values())

    def share_of(self, nodes: Collection[str]) -> float:
        """Part of all multiply-adds that those layers do, in whatever precision."""
        work = self._work_of_layers()
        return sum(work[name] for name in nodes) / sum(work.values())

    def _work_of_layers(self) -> dict[str, int]:
        if self._work is None:
            layers = self.layers
            names = list({str(v.name): None for one in layers for v in (one.data, one.output)})
            skipped = Skipped()
            batches = canvases(self.used[:_COUNTED_PHOTOS], self.artifact, skipped)
            each = (canvas for _, canvas in batches)
            self._work = dict.fromkeys((str(one.node.name) for one in layers), 0)
            for shapes in shapes_in_runs(self.model, names, each, self.options.threads):
                for one in layers:
                    self._work[str(one.node.name)] += multiply_adds(one, shapes)
            if not any(self._work.values()):
                require_enough(0, skipped)
        return self._work

    def _metadata(self) -> dict[str, str]:
        """The same spec; a manifest that tells the precision and who wrote it."""
        rest = "" if self.options.rest == "fp32" else f"+{self.options.rest}"
        manifest = replace(
            self.artifact.manifest,
            precision=f"{self.options.format}{rest}",
            versions={**self.artifact.manifest.versions, "maskport": __version__},
        )
        options = self.options
        ranges = options.method if options.import_cache is None else "imported"
        rounding = "learned" if options.learns_rounding else "nearest"
        choice = options.preset if options.budget is None else f"budget-{options.budget:g}"
        reduced = " reduced-range" if self.reduces_range else ""
        told = f"{self.writer} {choice} {ranges} {rounding}{reduced}"
        return {**to_metadata(self.artifact.spec, manifest), "maskport.quantisation": told}


def prepare(
    file: OnnxFile,
    source: Path,
    table: Path,
    photos: Sequence[Path],
    options: QuantizeOptions,
    advance: Advance,
) -> Job:
    """Find ranges, by photos or out of an imported cache, and learn how to round.

    Args:
        file: a float32 file of ours.
        source: its path, for messages.
        table: where the calibration table is, or will be.
        photos: to calibrate on.
        options: how.
        advance: called with the number of photos done.

    Raises:
        UsageError: too few usable photos.
        ArtifactError: nothing to quantise, a table that does not fit, a tensor that is not finite.
    """
    model = ir.serde.deserialize_model(file.model)
    layers = weighted_layers(model.graph)
    chosen = chosen_layers(layers, options.preset)
    if not chosen:
        raise ArtifactError(f"{source}: no layer to quantise; expected a Mask R-CNN of ours")
    name = writer_for(file.artifact.manifest.target, options)
    if options.import_cache is not None:
        wanted = [str(v.name) for v in WRITERS[name].place(model.graph, chosen).ranges]
        largest = read_cache(options.import_cache, wanted)
        return Job(
            file,
            model,
            name,
            options,
            lambda tensor, _: largest[tensor],
            round_to_nearest,
            used=list(photos),
        )
    skipped, given = Skipped(), len(photos)
    photos = without_copies(photos, skipped)
    advance(given - len(photos))
    # Of all hidden layers: one table serves every writer and every choice of layers.
    hidden = [layer for layer in layers if not layer.is_predictor]
    names = tensors_to_observe(model.graph, hidden)
    key = TableKey.of(file.artifact, file.sha256, options)
    filled = Table.load(table, key, names) if table.exists() else Table(key, names)
    run = calibrate(model, file.artifact, photos, filled, table, skipped, advance, options.threads)
    require_enough(len(filled.photos), skipped)
    used = [photo for photo in photos if photo not in skipped.photos]
    require_enough(len(used), skipped)
    candidates = chosen if options.budget is None else hidden
    at_risk = chosen
    if options.budget is not None:
        at_risk = [layer for layer in hidden if layer.role != UNJUDGED_ROLE]
    filled.require_ranges(str(v.name) for v in WRITERS[name].place(model.graph, at_risk).ranges)
    learned = LearnedRounding(candidates) if options.learns_rounding else None
    if learned is not None:
        advance(min(given, PHOTOS) - min(len(used), PHOTOS))
        show_inputs(learned.readers, model, file.artifact, used, skipped, advance, options.threads)
    return Job(
        file,
        model,
        name,
        options,
        filled.largest,
        learned or round_to_nearest,
        used,
        filled,
        run,
        skipped.reasons,
    )
