"""The manifest beside an engine, with the hash that is checked before the engine is loaded.

An engine is executable code. The manifest of `<stem>.<arch>.engine` is `<engine>.json`. An attacker
who can rewrite both files passes this check; only a hash kept elsewhere
(`Predictor.open(…, sha256=…)`) pins an engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from model.errors import ArtifactError, in_brief
from runtime.artifacts.metadata import MANIFEST_KEY, SPEC_KEY, Artifact, from_metadata, to_metadata

ENGINE_SCHEMA_VERSION = 1
LIBRARIES = ("tensorrt", "tensorrt_rtx")
HARDWARE_LEVELS = ("none", "ampere-plus", "same-compute-capability")
# TensorRT's and NumPy's names of types.
TYPE_NAMES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "INT32": "int32",
    "INT64": "int64", "UINT8": "uint8", "BOOL": "bool", "FP8": "float8",
}  # fmt: skip
_IO_TYPES = ("float32", "int32")
_MAX_MANIFEST_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output; -1 in the shape is the batch."""

    name: str
    mode: Literal["input", "output"]
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Description of a built engine.

    Attributes:
        sha256: of the engine file.
        size_bytes: of the engine file.
        library: "tensorrt" or "tensorrt_rtx".
        library_version: of the builder.
        architecture: such as "sm89".
        onnx_sha256: of the compiled graph.
        tensors: inputs and outputs, in the library's order.
        layer_types: tensor type → number of convolutions and matrix products with that output
            type, in the parsed network.
        quantize_layers: Q nodes in the parsed network.
        options: of the builder.
        build_seconds: duration of the build.
        version_compatible: whether later versions of the library can run it.
        hardware_compatible: "none", "ampere-plus" or "same-compute-capability".
    """

    sha256: str
    size_bytes: int
    library: str
    library_version: str
    architecture: str
    onnx_sha256: str
    tensors: tuple[TensorInfo, ...]
    layer_types: Mapping[str, int] = field(default_factory=dict)
    quantize_layers: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    build_seconds: float = 0.0
    version_compatible: bool = False
    hardware_compatible: str = "none"


@dataclass(frozen=True, slots=True)
class EngineFile:
    """A parsed manifest: spec and manifest of the artifact, and how the engine was built."""

    artifact: Artifact
    info: EngineInfo


def manifest_path(engine: Path) -> Path:
    """`<engine>.json`."""
    return engine.with_name(engine.name + ".json")


def to_text(artifact: Artifact, info: EngineInfo) -> str:
    """The manifest as JSON."""
    pairs = to_metadata(artifact.spec, artifact.manifest)
    content = {
        "schema_version": ENGINE_SCHEMA_VERSION,
        "engine": asdict(info),
        "manifest": json.loads(pairs[MANIFEST_KEY]),
        "spec": json.loads(pairs[SPEC_KEY]),
    }
    return _dumped(content)


def _dumped(content: Mapping[str, Any]) -> str:
    """JSON text whose last entry is the hash of all others."""
    plain = json.dumps(content, indent=1)
    digest = hashlib.sha256(plain.encode()).hexdigest()
    return json.dumps({**content, "manifest_sha256": digest}, indent=1)


def read_engine_file(engine: Path) -> EngineFile:
    """Read the manifest beside an engine, without opening the engine.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    path = manifest_path(engine)
    try:
        if not path.is_file():
            raise ArtifactError(
                f"{engine}: its manifest {path.name} is missing; an engine is code and is "
                "not loaded without; copy both, or build it again with maskport engine"
            )
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ArtifactError(f"{path}: larger than any manifest; build the engine again")
        return _from_text(engine, path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: not a readable manifest ({in_brief(error)}); build the engine again"
        ) from error


def load_checked(engine: Path, sha256: str | None = None) -> tuple[bytes, EngineFile]:
    """Read an engine and check its hash against the manifest.

    The file is read once: the returned bytes are those that were hashed.

    Args:
        engine: the file.
        sha256: another hash that must match as well.

    Raises:
        ArtifactError: a file is missing or damaged, or a hash differs.
    """
    read = read_engine_file(engine)
    try:
        if not engine.is_file():
            raise ArtifactError(f"{engine}: no such file; build the engine again")
        if engine.stat().st_size != read.info.size_bytes:
            raise ArtifactError(
                f"{engine}: expected {read.info.size_bytes} bytes by its manifest, got "
                f"{engine.stat().st_size}; it was changed or truncated; build it again"
            )
        plan = engine.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{engine}: cannot be read ({error.strerror}); check permissions and disk"
        ) from error
    digest = hashlib.sha256(plan).hexdigest()
    for expected, whose in ((read.info.sha256, "its manifest's"), (sha256, "the expected")):
        if expected is not None and digest != expected.lower():
            raise ArtifactError(
                f"{engine}: its SHA-256 {digest[:16]}… is not {whose} {expected[:16]}…; it was "
                "changed since it was built and is not loaded; build it again"
            )
    return plan, read


def _from_text(engine: Path, text: str) -> EngineFile:
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("schema_version") != ENGINE_SCHEMA_VERSION:
        raise ValueError(f"expected schema_version {ENGINE_SCHEMA_VERSION}")
    content = {key: value for key, value in data.items() if key != "manifest_sha256"}
    if _dumped(content) != text:
        raise ValueError("it was changed since it was written")
    for part in ("engine", "manifest", "spec"):
        if not isinstance(data.get(part), dict):
            raise ValueError(f"expected an object '{part}'")
    pairs = {SPEC_KEY: json.dumps(data["spec"]), MANIFEST_KEY: json.dumps(data["manifest"])}
    read = EngineFile(from_metadata(engine, pairs), _info(data["engine"]))
    _check_sizes(read)
    return read


def _check_sizes(read: EngineFile) -> None:
    """Check that the tensors' shapes, from which buffers are allocated, match the manifest."""
    manifest, tensors = read.artifact.manifest, read.info.tensors
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ValueError("engine.tensors: a name twice")
    batch = manifest.batch if manifest.batch_range is None else -1
    for tensor in tensors:
        if tensor.shape[:1] != (batch,) or -1 in tensor.shape[1:]:
            raise ValueError(f"engine.tensors: '{tensor.name:.40}' has another batch than manifest")
        if tensor.name == "images" and tensor.shape[2:] != (manifest.height, manifest.width):
            raise ValueError("engine.tensors: 'images' has another canvas than manifest")


# JSON types by the annotation of an `EngineInfo` field.
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,),
    "tuple[TensorInfo, ...]": (list,), "Mapping[str, int]": (dict,), "Mapping[str, Any]": (dict,),
}  # fmt: skip
_FIELDS = {one.name: _JSON_TYPES[str(one.type)] for one in fields(EngineInfo)}


def _info(data: Mapping[str, Any]) -> EngineInfo:
    if set(data) != set(_FIELDS):
        odd = sorted(set(data) ^ set(_FIELDS))
        raise ValueError(f"engine: unknown or missing {', '.join(map(str, odd[:5]))}")
    for name, types in _FIELDS.items():
        is_bool = isinstance(data[name], bool)
        if not isinstance(data[name], types) or (is_bool and bool not in types):
            raise ValueError(f"engine.{name}: expected {types[0].__name__}, got {data[name]!r:.40}")
    if data["library"] not in LIBRARIES:
        raise ValueError(f"engine.library: expected one of {', '.join(LIBRARIES)}")
    if data["hardware_compatible"] not in HARDWARE_LEVELS:
        raise ValueError(
            f"engine.hardware_compatible: expected one of {', '.join(HARDWARE_LEVELS)}"
        )
    return EngineInfo(**{**data, "tensors": tuple(_tensor(t) for t in data["tensors"])})


def _tensor(data: object) -> TensorInfo:
    if not isinstance(data, dict) or set(data) != {"name", "mode", "dtype", "shape"}:
        raise ValueError("engine.tensors: expected name, mode, dtype and shape")
    shape, mode = data["shape"], data["mode"]
    is_shape = isinstance(shape, list) and all(type(side) is int and side >= -1 for side in shape)
    if mode not in ("input", "output") or not is_shape:
        raise ValueError(f"engine.tensors: malformed '{data['name']!s:.40}'")
    if not isinstance(data["name"], str) or data["dtype"] not in _IO_TYPES:
        raise ValueError(f"engine.tensors: expected a name and one of {', '.join(_IO_TYPES)}")
    return TensorInfo(data["name"], mode, data["dtype"], tuple(shape))
