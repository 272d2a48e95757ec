"""Read an ONNX file from outside: its metadata, and no data from outside its folder."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import ArtifactError, in_brief
from runtime.artifacts.checksum import CHECKSUM_KEY, require_no_stale_checksum, verify_checksum
from runtime.artifacts.metadata import Artifact, from_metadata

if TYPE_CHECKING:
    import onnx

_MAX_BYTES = 2**31 - 1  # of a protocol buffer


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A graph in memory with all its data, its metadata, and the file's SHA-256."""

    model: onnx.ModelProto
    artifact: Artifact
    sha256: str


def read_onnx(path: Path) -> OnnxFile:
    """Read and check a file that maskport wrote.

    Raises:
        ArtifactError: no such file, damaged, changed since it was written, without our metadata,
            or with external data that is not a plain file in the same folder.
    """
    content = read_content(path)
    has_checksum = verify_checksum(path, alone=False, content=content)
    model = parse_onnx(path, content)
    pairs = {entry.key: entry.value for entry in model.metadata_props}
    require_no_stale_checksum(path, has_checksum, pairs)
    remove_checksum(model)
    artifact = from_metadata(path, pairs)
    load_external(model, path)
    return OnnxFile(model, artifact, hashlib.sha256(content).hexdigest())


def remove_checksum(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the checksum, in place, from a model that will be changed; returns the model."""
    others = [entry for entry in model.metadata_props if entry.key != CHECKSUM_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    return model


def read_content(path: Path) -> bytes:
    """The bytes of an ONNX file.

    Raises:
        ArtifactError: no such file, one that cannot be read, or one larger than ONNX allows.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected an ONNX file of maskport export")
    if path.stat().st_size > _MAX_BYTES:
        raise ArtifactError(f"{path}: expected an ONNX file, at most 2 GiB, got a larger file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: expected a readable file ({error.strerror})") from error


def parse_onnx(path: Path, content: bytes) -> onnx.ModelProto:
    """The model in the content of a file, without its external data.

    Raises:
        ArtifactError: not ONNX, or truncated.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: not a readable ONNX file ({in_brief(error, 120)}); "
            "it is damaged or truncated, export it again"
        ) from error
    # A file that was truncated between two of these fields parses without an error.
    if not model.graph.node or not model.opset_import:
        raise ArtifactError(f"{path}: incomplete graph; it is damaged or truncated, export again")
    return model


def load_external(model: onnx.ModelProto, path: Path) -> None:
    """Bring external tensors in, each from a plain file below the model's own folder.

    Raises:
        ArtifactError: a tensor refers to another folder, a link, a device, or beyond the file.
    """
    import onnx

    tensors = [
        tensor
        for tensor in onnx.external_data_helper._get_all_tensors(model)
        if onnx.external_data_helper.uses_external_data(tensor)
    ]
    folder = Path(os.path.realpath(path.parent))
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        _check_location(path, folder, tensor.name, entries)
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            onnx.numpy_helper.to_array(tensor)  # checks the number of values
        except Exception as error:  # onnx has its own exception types
            raise ArtifactError(
                f"{path}: tensor '{tensor.name[:60]}': external data cannot be read "
                f"({in_brief(error, 120)}); save the model again"
            ) from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _check_location(path: Path, folder: Path, name: str, entries: dict[str, str]) -> None:
    location = entries.get("location", "")
    where = f"{path}: tensor '{name[:60]}' takes its data from '{location[:100]}'"
    target = Path(os.path.normpath(folder / location))
    if not location or os.path.isabs(location) or not target.is_relative_to(folder):
        raise ArtifactError(f"{where}: expected a file in the model's folder; not read")
    try:
        status = target.lstat()
    except OSError as error:
        raise ArtifactError(f"{where}: expected this file beside the model") from error
    is_inside = Path(os.path.realpath(target)) == target
    if not stat.S_ISREG(status.st_mode) or not is_inside or status.st_nlink != 1:
        raise ArtifactError(f"{where}: expected a plain file, not a link or a device; not read")
    for key in ("offset", "length"):
        value = entries.get(key, "0")
        if not value.isdecimal() or len(value) > 19 or int(value) > status.st_size:
            raise ArtifactError(
                f"{where}: its {key} '{value[:30]}' is not within that file; save the model again"
            )
