"""Write on every node which part of the network it is, and forget how it was traced.

Later passes and precision policies ask for a node's role; none guesses from names. The tracer's
own notes go: they hold source lines and paths of the machine that exported.
"""

from __future__ import annotations

import ast

import onnx_ir as ir

ROLE_KEY = "maskport.role"
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_OUTSIDE = "outputs"


def tag_roles(model: ir.Model, roles: frozenset[str]) -> None:
    """Tag each node with the child of the network that made it, e.g. "rpn" or "mask_head".

    Nodes made by no child (the graph's last casts and sums) are tagged "outputs".

    Args:
        model: a graph as the tracer left it; changed in place.
        roles: names of the network's children.
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
    """The role that `tag_roles` gave the node, or "" where it was made later."""
    return node.metadata_props.get(ROLE_KEY, "")


def _top_scope(node: ir.Node) -> str:
    text = node.metadata_props.get(_SCOPES_KEY, "")
    scopes = ast.literal_eval(text) if text else []
    # The first scope is the network itself, the second is dotted below one of its children.
    return str(scopes[1]).split(".")[0] if len(scopes) > 1 else ""


def _all_values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph.all_nodes() for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made]
