"""`ModelSpec` to JSON and back; an unknown or missing field is an error."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from model.errors import SpecError, closest_name
from model.spec import ModelSpec, PoolerSpec

SCHEMA_VERSION = 2
_Spec = TypeVar("_Spec")


def to_json(spec: ModelSpec, *, indent: int | None = None, complete: bool = False) -> str:
    """Write `spec` as JSON text with its schema version.

    Fields that were added later are left out at their default, unless the text is to be `complete`.
    """
    data = asdict(spec) if complete else to_data(spec)
    return json.dumps({"schema_version": SCHEMA_VERSION, **data}, indent=indent)


def to_data(part: Any) -> dict[str, Any]:
    """A part of a spec as JSON data; later fields only if they differ from their default.

    So earlier files, and what was computed for them, equal those of the same model today.
    """
    return {
        f.name: to_data(value) if is_dataclass(value := getattr(part, f.name)) else value
        for f in fields(part)
        if not (f.metadata.get("added") and getattr(part, f.name) == f.default)
    }


def from_json(text: str) -> ModelSpec:
    """Read a spec that `to_json` wrote.

    Raises:
        SpecError: not JSON, another schema version, or a field that is unknown, missing or of
            the wrong type; the message has the field's path.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"spec: not valid JSON ({error}); correct it") from error
    if not isinstance(data, dict):
        raise SpecError(f"spec: expected a JSON object, got {type(data).__name__}")
    version = data.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise SpecError(
            f"spec: expected schema_version {SCHEMA_VERSION}, got {version}; "
            "export the model again with this version of maskport"
        )
    return _build(ModelSpec, data, "spec")


@cache
def pooler_to_json(spec: PoolerSpec) -> str:
    """Write one pooler, as an argument of an operator."""
    return json.dumps(to_data(spec))


@cache
def pooler_from_json(text: str) -> PoolerSpec:
    """Read what `pooler_to_json` wrote.

    Raises:
        SpecError: a field that is unknown, missing or of the wrong type.
    """
    return _build(PoolerSpec, json.loads(text), "pooler")


def merge(spec: ModelSpec, overrides: Mapping[str, Any]) -> ModelSpec:
    """`spec` with the nested fields of `overrides` replaced, for `--spec` files.

    Raises:
        SpecError: a field that does not exist or a value of the wrong type.
    """
    return _build(ModelSpec, _merge(asdict(spec), overrides, "spec"), "spec")


def _merge(base: dict[str, Any], extra: Mapping[str, Any], path: str) -> dict[str, Any]:
    merged = dict(base)
    for key, value in extra.items():
        if key not in base:
            raise SpecError(_unknown(key, list(base), path))
        if isinstance(value, Mapping) and isinstance(base[key], dict):
            merged[key] = _merge(base[key], value, f"{path}.{key}")
        else:
            merged[key] = value
    return merged


def _unknown(key: str, known: list[str], path: str) -> str:
    close = closest_name(key, known)
    hint = f"; did you mean '{close}'?" if close else f"; known: {', '.join(known)}"
    return f"{path}: unknown field '{key}'{hint}"


def _build(cls: type[_Spec], data: object, path: str) -> _Spec:
    if not isinstance(data, dict):
        raise SpecError(f"{path}: expected an object, got {type(data).__name__}")
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise SpecError(_unknown(key, known, path))
    added = {f.name for f in fields(cls) if f.metadata.get("added")}  # type: ignore[arg-type]
    missing = [name for name in known if name not in data and name not in added]
    if missing:
        raise SpecError(f"{path}: missing field '{missing[0]}'; add it")
    return cls(**{name: _value(hints[name], data[name], f"{path}.{name}") for name in data})


def _value(hint: Any, data: Any, path: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _union(get_args(hint), data, path)
    if origin is tuple:
        return _tuple(get_args(hint), data, path)
    if origin is Literal:
        if data not in get_args(hint):
            raise SpecError(f"{path}: expected one of {get_args(hint)}, got {_shown(data)}")
        return data
    if is_dataclass(hint):
        return _build(hint, data, path)  # type: ignore[arg-type]
    return _scalar(hint, data, path)


def _scalar(hint: Any, data: Any, path: str) -> Any:
    if hint is float and type(data) is int and abs(data) <= 2**53:
        return float(data)
    if type(data) is not hint:
        raise SpecError(f"{path}: expected {hint.__name__}, got {_shown(data)}")
    return data


def _shown(data: object) -> str:
    # The repr of a huge number or of a deep list would be too long, or fail.
    return repr(data)[:60] if isinstance(data, str | float | bool | None) else type(data).__name__


def _tuple(args: tuple[Any, ...], data: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise SpecError(f"{path}: expected a list, got {_shown(data)}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_value(args[0], item, f"{path}[{i}]") for i, item in enumerate(data))
    if len(data) != len(args):
        raise SpecError(f"{path}: expected {len(args)} values, got {len(data)}")
    pairs = enumerate(zip(args, data, strict=True))
    return tuple(_value(hint, item, f"{path}[{i}]") for i, (hint, item) in pairs)


def _union(args: tuple[Any, ...], data: Any, path: str) -> Any:
    if data is None and type(None) in args:
        return None
    choices = [a for a in args if a is not type(None)]
    if len(choices) == 1:
        return _value(choices[0], data, path)
    classes = {get_args(get_type_hints(c)["kind"])[0]: c for c in choices}
    name = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in classes:
        raise SpecError(f"{path}.kind: expected one of {sorted(classes)}, got {_shown(name)}")
    return _build(classes[name], data, path)
