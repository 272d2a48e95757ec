"""Observers against closed forms and against ONNX Runtime's own calibrators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    HistogramCollector,
    MinMaxCalibrater,
)

from calib.observers.histogram import BINS, Entropy, Histogram, Mse, Percentile
from calib.observers.methods import METHODS, MinMax
from calib.options import QuantizeOptions
from model.errors import UsageError

Batches = list[npt.NDArray[np.float32]]


def _normal(count: int = 400_000, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def _laplace(count: int = 400_000) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).laplace(size=count).astype(np.float32)


def _batches() -> Batches:
    """Features of photos of different sizes and ranges, one of them zero."""
    rng = np.random.default_rng(2)
    scales = (1.0, 0.0, 0.3, 7.5, 2.0)
    return [(rng.standard_normal((1, 4, 9, 5 + n)) * s).astype("f4") for n, s in enumerate(scales)]


class _Reader(CalibrationDataReader):
    def __init__(self, batches: Batches) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        batch = next(self._left, None)
        return None if batch is None else {"x": batch}


def _onnxruntime_range(batches: Batches, folder: Path) -> tuple[float, float]:
    """Its min-max calibrator's range of a ReLU's input."""
    shape = ["n", "c", "h", "w"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [onnx.helper.make_tensor_value_info("x", 1, shape)],
        [onnx.helper.make_tensor_value_info("y", 1, shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, folder / "relu.onnx")
    calibrater = MinMaxCalibrater(
        folder / "relu.onnx", augmented_model_path=str(folder / "augmented.onnx")
    )
    calibrater.augment_graph()
    calibrater.create_inference_session()
    calibrater.collect_data(_Reader(batches))
    low, high = calibrater.compute_data()["x"].range_value
    return float(np.squeeze(low)), float(np.squeeze(high))


def test_min_max_is_onnxruntimes(tmp_path: Path) -> None:
    observer = MinMax()
    for batch in _batches():
        observer.observe(batch)
    low, high = _onnxruntime_range(_batches(), tmp_path)
    assert observer.largest(127) == max(-low, high)


def _onnxruntime_histogram(method: str, values: npt.NDArray[np.float32], bins: int) -> float:
    collector = HistogramCollector(method, True, bins, 128, 99.99, None)
    collector.collect({"x": values})
    return float(collector.compute_collection_result()["x"][1])


@pytest.mark.parametrize("values", [_normal(), _laplace()], ids=["normal", "laplace"])
def test_percentile_is_onnxruntimes(values: npt.NDArray[np.float32]) -> None:
    observer = Percentile()
    observer.observe(values)
    theirs = _onnxruntime_histogram("percentile", values, 2048)
    exact = float(np.quantile(np.abs(values), 0.9999))
    # Both return an edge of a bin, theirs the lower and ours the upper.
    assert exact <= observer.largest(127) <= exact + observer.width
    assert (
        abs(observer.largest(127) - theirs) <= float(np.abs(values).max()) / 2048 + observer.width
    )


def test_percentile_of_a_ramp() -> None:
    observer = Percentile()
    observer.observe(np.linspace(-1.0, 1.0, 1_000_001, dtype=np.float32))
    assert observer.largest(127) == pytest.approx(0.9999, abs=observer.width)


@pytest.mark.parametrize("values", [_normal(), _laplace()], ids=["normal", "laplace"])
def test_entropy_is_near_onnxruntimes(values: npt.NDArray[np.float32]) -> None:
    observer = Entropy()
    observer.observe(values)
    theirs = _onnxruntime_histogram("entropy", values, 4096)
    # The divergence is flat about its minimum, and the bins of the two are not the same.
    assert observer.largest(127) == pytest.approx(theirs, rel=0.15)


def test_entropy_clips_a_single_outlier() -> None:
    values = np.append(_normal(), np.float32(400.0))
    entropy, min_max = Entropy(), MinMax()
    entropy.observe(values)
    min_max.observe(values)
    assert min_max.largest(127) == 400.0
    # The narrowest candidate range has 128 of 2048 bins.
    assert 4.0 < entropy.largest(127) <= 400.0 / 8


@pytest.mark.parametrize(
    ("values", "published"),
    [(_normal(4_000_000), 3.92), (_laplace(4_000_000), 9.89)],
    ids=["normal", "laplace"],
)
def test_mse_finds_the_published_clipping_of_8_bits(
    values: npt.NDArray[np.float32], published: float
) -> None:
    """Banner et al., Post training 4-bit quantization, 2019: the clipping in units of the scale."""
    observer = Mse()
    observer.observe(values)
    assert observer.largest(127) == pytest.approx(published, rel=0.05)


def test_mse_beats_every_other_range() -> None:
    values = np.append(_laplace(50_000), np.float32([30.0, -45.0]))
    observer = Mse()
    observer.observe(values)

    def error(limit: float) -> float:
        step = limit / 127
        rounded = np.clip(np.rint(values / step), -127, 127) * step
        return float(np.square(rounded - values).sum())

    best = min(error(limit) for limit in np.linspace(1.0, 45.0, 400))
    assert error(observer.largest(127)) <= 1.02 * best


def test_more_steps_clip_less() -> None:
    observer = Mse()
    observer.observe(_normal())
    assert observer.largest(7) < observer.largest(127) < observer.largest(255)


def test_a_histogram_does_not_depend_on_the_order() -> None:
    batches = _batches()
    forwards, backwards = Histogram(), Histogram()
    for one, other in zip(batches, reversed(batches), strict=True):
        forwards.observe(one)
        backwards.observe(other)
    values = np.abs(np.concatenate([b.reshape(-1) for b in batches]))
    edges = np.arange(BINS + 1) * forwards.width
    exact, _ = np.histogram(values, edges)
    assert forwards.limit == backwards.limit
    np.testing.assert_array_equal(forwards.counts, backwards.counts)
    np.testing.assert_array_equal(forwards.counts, exact[: len(forwards.counts)])


def test_a_histogram_does_not_grow() -> None:
    observer = Histogram()
    for exponent in range(-60, 60):
        observer.observe(np.float32([1.5 * 2.0**exponent]))
    assert len(observer.counts) <= BINS
    assert observer.counts.sum() == 120
    assert observer.maximum == np.float32(1.5 * 2.0**59)


@pytest.mark.parametrize("name", METHODS)
def test_an_observer_continues_from_its_state(name: str) -> None:
    method = METHODS[name]
    whole, first = method(), method()
    batches = _batches()
    for batch in batches:
        whole.observe(batch)
    for batch in batches[:2]:
        first.observe(batch)
    second = method.restore(json.loads(json.dumps(first.state())))
    for batch in batches[2:]:
        second.observe(batch)
    assert second.largest(127) == whole.largest(127) > 0
    assert second.state() == whole.state()


@pytest.mark.parametrize("name", METHODS)
def test_only_zeros_and_no_values(name: str) -> None:
    observer = METHODS[name]()
    observer.observe(np.zeros((0, 4), np.float32))
    assert observer.largest(127) == 0.0
    observer.observe(np.zeros((2, 4), np.float32))
    assert observer.largest(255) == 0.0


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(UsageError, match=r"min-max.*got 'kl'"):
        QuantizeOptions(method="kl")
