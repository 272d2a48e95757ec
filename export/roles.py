"""Tag every node with the part of the network that it belongs to, its role.

Passes and precision policies read the role instead of parsing names. The tracer's own metadata
is removed: it holds source lines and paths of the exporting machine.
"""

from __future__ import annotations

import ast

import onnx_ir as ir

ROLE_KEY = "maskport.role"
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_OUTSIDE = "outputs"


def tag_roles(model: ir.Model, roles: frozenset[str]) -> None:
    """Tag each node with the submodule that it was traced from, e.g. "rpn" or "mask_head".

    Nodes of no submodule (the final casts and sums) are tagged "outputs".

    Args:
        model: a graph as traced; changed in place.
        roles: names of the network's submodules.
    """
    for node in model.graph.all_nodes():
        role = _top_scope(node)
        node.metadata_props.clear()
        node.metadata_props[ROLE_KEY] = role if role in roles else _OUTSIDE
        node.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in _all_values(model.graph):
        value.metadata_props.clear()


def role_of(node: ir.Node) -> str:
    """The role from `tag_roles`, or "" for a node that was added later."""
    return node.metadata_props.get(ROLE_KEY, "")


def _top_scope(node: ir.Node) -> str:
    text = node.metadata_props.get(_SCOPES_KEY, "")
    scopes = ast.literal_eval(text) if text else []
    # The first scope is the network itself, the second a dotted path inside it.
    return str(scopes[1]).split(".")[0] if len(scopes) > 1 else ""


def _all_values(graph: ir.Graph) -> list[ir.Value]:
    outputs = [value for node in graph.all_nodes() for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *outputs]
