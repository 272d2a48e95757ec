"""Compare two ONNX graphs by structure: one line per difference, then exit status 1.

python bench/compare_graphs.py FIRST.onnx SECOND.onnx

Compared are operator types, attributes, edges, initializer bytes, graph inputs and outputs, opsets
and metadata. The order of nodes and the names of nodes and values inside the graph may differ, and
so may the checksum and the recorded versions.

Each value gets the digest of the expression that computes it from graph inputs and initializers.
Equal graphs have the same digests, each with the same numbers of consumers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from runtime.artifacts.checksum import CHECKSUM_KEY
from runtime.artifacts.metadata import MANIFEST_KEY

_IGNORED = (CHECKSUM_KEY, f"{MANIFEST_KEY}.versions")
_MAX_LINES = 5


@dataclass(frozen=True, slots=True)
class _Node:
    """A node by its digests: `operation` is of operator and attributes, `digest` of inputs too."""

    label: str
    digest: str
    operation: str
    inputs: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Graph:
    """A graph by digests.

    Attributes:
        values: digest of each value by its name, those of enclosing graphs included.
        initializers: names of initializers by digest.
        inputs: graph inputs in order.
        outputs: graph outputs in order.
        nodes: in the order of the file.
        consumers: how many values have this digest and so many consumers.
    """

    values: dict[str, str]
    initializers: dict[str, list[str]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[_Node] = field(default_factory=list)
    consumers: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def digest(self) -> str:
        """Digest of everything that is compared, for a graph inside If, Loop or Scan."""
        nodes = sorted((node.digest, node.metadata) for node in self.nodes)
        return _digest(self.inputs, self.outputs, nodes, sorted(self.consumers.items()))


def main() -> int:
    """Compare two files; status 1 when they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    args = parser.parse_args()
    lines = differences(onnx.load(args.first), onnx.load(args.second))
    print("\n".join(lines) or "identical graphs")
    return 1 if lines else 0


def differences(first: ModelProto, second: ModelProto) -> list[str]:
    """One line per difference, the first model's value before the second's; empty if equal."""
    a, b = _properties(first), _properties(second)
    lines = [
        f"{name}: {_short(a.get(name))} and {_short(b.get(name))}"
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    ]
    return lines + _graph_differences(_read(first.graph, {}), _read(second.graph, {}))


def _properties(model: ModelProto) -> dict[str, object]:
    """What is compared beside the graph; JSON objects in metadata have an entry for each field."""
    properties: dict[str, object] = {
        "IR version": model.ir_version,
        "producer": model.producer_name,
        "graph name": model.graph.name,
        "opsets": {opset.domain: opset.version for opset in model.opset_import},
        "local functions": sorted(f.SerializeToString() for f in model.functions),
    }
    for entry in (*model.metadata_props, *model.graph.metadata_props):
        try:
            value = json.loads(entry.value)
        except ValueError:
            value = entry.value
        properties |= {f"metadata {k}": v for k, v in _fields(entry.key, value)}
    return properties


def _fields(key: str, value: object) -> Iterator[tuple[str, object]]:
    if key in _IGNORED:
        return
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _fields(f"{key}.{name}", part)
    else:
        yield key, value


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _graph_differences(first: _Graph, second: _Graph) -> list[str]:
    lines = [*_only_in("first", first, second), *_only_in("second", second, first)]
    if first.inputs != second.inputs:
        lines.append("graph inputs: other names, types, shapes or order")
    if first.outputs != second.outputs:
        lines.append("graph outputs: other names, types, shapes, order or computations")
    if not lines and first.consumers != second.consumers:
        lines.append("edges: equal nodes or initializers are shared by other numbers of consumers")
    if not lines and first.digest != second.digest:
        lines.append("metadata of nodes differs")
    return lines


def _only_in(which: str, graph: _Graph, other: _Graph) -> Iterator[str]:
    """Initializers and nodes that the other graph lacks.

    A changed node changes the digests of all nodes after it, so only those are listed whose
    inputs both graphs compute.
    """
    known, digests = {"", *other.values.values()}, {node.digest for node in other.nodes}
    operations = {node.operation for node in other.nodes}
    initializers = [
        f"initializer {names[0]}"
        for digest, names in graph.initializers.items()
        if digest not in other.initializers
    ]
    nodes = [
        f"{node.label}: {'edges' if node.operation in operations else 'operator or attributes'}"
        for node in graph.nodes
        if node.digest not in digests and known.issuperset(node.inputs)
    ]
    for lines in (initializers, nodes):
        yield from (f"only in the {which}: {line}" for line in lines[:_MAX_LINES])
        if len(lines) > _MAX_LINES:
            yield f"only in the {which}: {len(lines) - _MAX_LINES} more"


def _read(graph: GraphProto, outer: Mapping[str, str]) -> _Graph:
    """Digests of a graph; `outer` has those of the values of enclosing graphs by name."""
    read = _Graph(dict(outer))
    uses: Counter[str] = Counter()
    for index, value in enumerate(graph.input):
        read.values[value.name] = _digest("input", index, value.name, _type(value))
        read.inputs.append(read.values[value.name])
    for tensor in graph.initializer:
        digest = _tensor(tensor)
        read.values[tensor.name] = digest
        read.initializers.setdefault(digest, []).append(tensor.name)
    if graph.sparse_initializer:
        raise ValueError("sparse initializers are not supported")
    for node in graph.node:
        parsed = _node(node, read.values)
        read.nodes.append(parsed)
        uses.update(node.input)
        for index, name in enumerate(node.output):
            read.values[name] = _digest(parsed.digest, index)
    uses.update(value.name for value in graph.output)
    for value in graph.output:
        read.outputs.append(_digest(value.name, _type(value), read.values[value.name]))
    own = {name: digest for name, digest in read.values.items() if name and name not in outer}
    read.consumers.update((digest, uses[name]) for name, digest in own.items())
    return read


def _node(node: NodeProto, values: Mapping[str, str]) -> _Node:
    attributes = sorted((a.name, a.type, _attribute(a, values)) for a in node.attribute)
    operation = _digest(node.domain, node.op_type, node.overload, attributes, len(node.output))
    inputs = tuple(values[name] if name else "" for name in node.input)
    metadata = tuple(sorted((entry.key, entry.value) for entry in node.metadata_props))
    label = f"{node.op_type} {node.name}"
    return _Node(label, _digest(operation, inputs), operation, inputs, metadata)


def _attribute(attribute: AttributeProto, values: Mapping[str, str]) -> str:
    """Digest of the value of an attribute; tensors without their names."""
    value = onnx.helper.get_attribute_value(attribute)
    parts = value if isinstance(value, list | tuple) else [value]
    return _digest(
        *(
            _tensor(part)
            if isinstance(part, TensorProto)
            else _read(part, values).digest
            if isinstance(part, GraphProto)
            else repr(part)
            for part in parts
        )
    )


def _tensor(tensor: TensorProto) -> str:
    content = hashlib.sha256(numpy_helper.to_array(tensor).tobytes())
    return _digest(tensor.data_type, tuple(tensor.dims), content.hexdigest())


def _type(value: onnx.ValueInfoProto) -> str:
    return str(value.type)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
