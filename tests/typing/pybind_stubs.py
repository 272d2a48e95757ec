"""Type stubs of a pybind11 module, from its docstrings: they hold every signature.

What pybind11's docstrings leave open is decided as follows.

- An interface (`ICudaEngine`: I and a capital) is returned as a pointer that may be null: its type
  is `ICudaEngine | Any`, so that a test for None is neither demanded nor unreachable code. (What
  is assigned to a property is then not checked, unless the variable's type is written out.)
- An integer argument takes what has `__index__`: pybind11 refuses a float. In an interface that
  Python may derive from, it is `int`, which is what an overriding method is called with.
- A shape may be given as a sequence and weights as an array: the bindings convert them.
- numpy arrays, capsules and C++ types that have no Python name are `Any`.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import inspect
import keyword
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

ANY = "typing.Any"
INTS = "collections.abc.Sequence[typing.SupportsIndex]"
# Conversions that the bindings register (`py::implicitly_convertible`); no docstring shows them.
CONVERTED = {
    **dict.fromkeys(("Dims", "Dims2", "Dims3", "Dims4", "DimsHW", "Permutation"), INTS),
    "FallbackString": "builtins.str",
    "Weights": ANY,
}
# Spelled bare by pybind11, where mypy's strict mode wants the arguments.
GENERIC = {
    "dict": "builtins.dict[typing.Any, typing.Any]",
    "list": "builtins.list[typing.Any]",
    "set": "builtins.set[typing.Any]",
    "tuple": "builtins.tuple[typing.Any, ...]",
    "collections.abc.Callable": "collections.abc.Callable[..., typing.Any]",
    "collections.abc.Iterable": "collections.abc.Iterable[typing.Any]",
    "collections.abc.Iterator": "collections.abc.Iterator[typing.Any]",
    "collections.abc.Mapping": "collections.abc.Mapping[typing.Any, typing.Any]",
    "collections.abc.Sequence": "collections.abc.Sequence[typing.Any]",
}
# Those with a meaning for mypy that `object` does not declare already.
OPERATORS = {"init", "enter", "exit", "int", "index", "bool", "lt", "le", "gt", "ge"} | {
    *("len", "iter", "contains", "getitem", "setitem", "delitem"),
}
# A derived class narrows what its base declares (`ILayer.type`), and some overloads are doubled.
HEADER = """\
# Made by tests/typing/pybind_stubs.py from {source}; not to be edited.
# mypy: disable-error-code="override, overload-cannot-match, overload-overlap"
import builtins
import collections.abc
import typing
import typing_extensions
"""
BF_GETBUFFER = 1  # CPython's number of the slot, stable
HEAP_TYPE = 1 << 9

Use = typing.Literal["argument", "override", "setter", "result"]


def signatures(doc: str | None) -> list[str]:
    """The signatures at the head of a pybind11 docstring, from "(" on; one for each overload."""
    lines = (doc or "").strip().splitlines() or [""]
    if "Overloaded function." in lines[1:3]:
        numbered = (re.match(r"\d+\. \w+(\(.*)", line) for line in lines)
        return [match[1] for match in numbered if match]
    first = re.match(r"\w*(\(.*\).*)", lines[0])
    return [first[1]] if first else []


def parse(signature: str) -> ast.FunctionDef:
    """A signature as Python syntax, C++ names cut to their last part.

    One that Python cannot express (a default before an argument without one) becomes a function
    that takes and returns anything.
    """
    text = re.sub(r"= <[^<>]*>", "= ...", signature)
    text = re.sub(r"[\w:]+<[^<>()]*>", "cxx_template", text)
    text = re.sub(r"(?:\w+::)+(\w+)", r"\1", text)
    # An argument that is named as a keyword can only be given by position, like an unnamed one.
    words = re.compile(rf"\b(?:{'|'.join(keyword.kwlist)})(?=: )")
    text = words.sub(lambda match: f"arg{match.start()}", text)
    try:
        tree = ast.parse(f"def f{text}: ...")
    except SyntaxError:
        tree = ast.parse("def f(*args, **kwargs): ...")
    (node,) = (n for n in tree.body if isinstance(n, ast.FunctionDef))
    return node


def _is_interface(name: str) -> bool:
    return re.fullmatch(r"I[A-Z]\w*", name) is not None


def _full(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@dataclass(frozen=True, slots=True)
class Types:
    """How a docstring's type is spelled in the stub; `known` gives a class's name in the stub."""

    known: Mapping[str, str]

    def spell(self, node: ast.expr | None, use: Use) -> str:
        """The type of an argument, of a property's new value or of a result."""
        text = ANY if node is None else self._spell(node, exact=use == "override")
        if use == "result" and text == "builtins.object":
            return ANY
        if use == "result":
            return f"{text} | {ANY}" if _is_interface(text) else text
        if use == "setter" and _is_interface(text):
            return f"{text} | None"
        return f"{text} | {CONVERTED[text]}" if text in CONVERTED else text

    def _spell(self, node: ast.expr, exact: bool) -> str:
        if isinstance(node, ast.Constant):
            return {"None": "None", "Ellipsis": "..."}.get(str(node.value), ANY)
        if isinstance(node, ast.BinOp):
            return f"{self._spell(node.left, exact)} | {self._spell(node.right, exact)}"
        if isinstance(node, ast.List):
            return f"[{', '.join(self._spell(item, exact) for item in node.elts)}]"
        if isinstance(node, ast.Subscript):
            return self._subscript(node, exact)
        return self._name(ast.unparse(node), exact)

    def _subscript(self, node: ast.Subscript, exact: bool) -> str:
        base = ast.unparse(node.value)
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if base == "typing.Annotated":
            return self._spell(items[0], exact)
        head = self._name(base, exact).partition("[")[0]
        arguments = ", ".join(self._spell(item, exact) for item in items)
        return ANY if head == ANY else f"{head}[{arguments}]"

    def _name(self, name: str, exact: bool) -> str:
        if name in ("typing.SupportsInt", "typing.SupportsIndex"):
            return "builtins.int" if exact else "typing.SupportsIndex"
        if name == "typing.SupportsFloat" and exact:
            return "builtins.float"
        if name in GENERIC:
            return GENERIC[name]
        if name.endswith(".Buffer"):
            return "typing_extensions.Buffer"
        if isinstance(getattr(builtins, name, None), type):
            return f"builtins.{name}"
        if name.startswith("typing.") and hasattr(typing, name.removeprefix("typing.")):
            return name
        # C++ calls `Builder` IBuilder.
        return self.known.get(name) or self.known.get(name.removeprefix("I"), ANY)


def _annotate(argument: ast.arg, default: ast.expr | None, types: Types, use: Use) -> None:
    text = types.spell(argument.annotation, use)
    if isinstance(default, ast.Constant) and default.value is None and text != ANY:
        text += " | None"
    argument.annotation = ast.parse(text, mode="eval").body


def _annotate_all(node: ast.FunctionDef, types: Types, use: Use, has_self: bool) -> None:
    arguments = node.args
    given = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(given) - len(arguments.defaults)) + arguments.defaults
    for argument, default in zip(given, defaults, strict=True):
        _annotate(argument, default, types, use)
    for extra in (arguments.vararg, arguments.kwarg, *arguments.kwonlyargs):
        if extra is not None:
            _annotate(extra, None, types, use)
    if has_self:
        given = [ast.arg("self"), *given[1:]]
    # pybind11 made these names up: such an argument cannot be given by name.
    unnamed = (i for i, argument in enumerate(given, 1) if re.fullmatch(r"arg\d+", argument.arg))
    by_position = max([len(arguments.posonlyargs), *unnamed])
    arguments.posonlyargs, arguments.args = given[:by_position], given[by_position:]
    arguments.defaults = [ast.Constant(...) for _ in arguments.defaults]
    result = "None" if node.name == "__init__" else types.spell(node.returns, "result")
    node.returns = ast.parse(result, mode="eval").body


def _nodes(member: object) -> list[ast.FunctionDef]:
    if inspect.isfunction(member):
        return [parse(str(inspect.signature(member)))]
    return [parse(signature) for signature in signatures(member.__doc__)] or [parse("?")]


def function_stub(name: str, member: object, types: Types, use: Use, owner: str = "") -> str:
    """The stub of a function, one definition for each overload.

    Args:
        name: what it is called in the stub.
        member: the function, whose docstring or Python signature is read.
        types: the classes known.
        use: how its arguments' types are spelled.
        owner: "self" for a method, "static" for a static method, else empty.
    """
    stubs = []
    for node in _nodes(member):
        node.name = name
        _annotate_all(node, types, use, has_self=owner == "self")
        stubs.append(ast.unparse(node))
    stubs = list(dict.fromkeys(stubs))
    marks = "@typing.overload\n" if len(stubs) > 1 else ""
    marks += "@staticmethod\n" if owner == "static" else ""
    return "".join(f"{marks}{text}\n" for text in stubs)


def _read_type(member: object, types: Types) -> str:
    getter = getattr(member, "fget", None)
    # Reading what can only be set is an error: nothing can be done with an object.
    return types.spell(_nodes(getter)[0].returns, "result") if getter else "builtins.object"


def _property_stub(name: str, member: property, types: Types) -> str:
    text = f"@property\ndef {name}(self) -> {_read_type(member, types)}: ...\n"
    if member.fset is None:
        return text
    arguments = _nodes(member.fset)[0].args
    annotations = [None, *(given.annotation for given in arguments.posonlyargs + arguments.args)]
    written = types.spell(annotations[-1], "setter")
    return f"{text}@{name}.setter\ndef {name}(self, value: {written}) -> None: ...\n"


def _value_stub(name: str, value: object, types: Types) -> str:
    cls = type(value)
    spelled = types.known.get(_full(cls)) or types.spell(ast.Name(cls.__name__), "result")
    return f"{name}: typing.Final[{spelled}]\n"


def _iteration_stub(members: Mapping[str, object], types: Types) -> str:
    """What Python iterates over by index has no `__iter__`, which mypy asks for."""
    if "__iter__" in members or not {"__getitem__", "__len__"} <= members.keys():
        return ""
    nodes = _nodes(members["__getitem__"])
    by_index = [node.returns for node in nodes if "slice" not in ast.unparse(node.args)]
    item = types.spell(by_index[0], "result") if by_index else ANY
    return f"def __iter__(self) -> collections.abc.Iterator[{item}]: ...\n"


def _has_buffer(cls: type) -> bool:
    get_slot = ctypes.pythonapi.PyType_GetSlot
    get_slot.restype, get_slot.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_int)
    return bool(cls.__flags__ & HEAP_TYPE) and bool(get_slot(cls, BF_GETBUFFER))


def _type_stub(name: str, member: type, cls: type, types: Types) -> str:
    if member.__qualname__ == f"{cls.__qualname__}.{name}":
        return class_stub(name, member, types)
    return f"{name} = {types.known.get(_full(member), ANY)}\n"


def _member_stub(name: str, member: object, cls: type, types: Types, use: Use) -> str:
    if isinstance(member, type):
        return _type_stub(name, member, cls, types)
    if type(member).__name__ == "pybind11_static_property":
        return f"{name}: typing.Final[{_read_type(member, types)}]\n"
    if isinstance(member, property):
        return _property_stub(name, member, types)
    if isinstance(member, staticmethod):
        return function_stub(name, getattr(cls, name), types, use, "static")
    if name == "__enter__":
        return "def __enter__(self) -> typing_extensions.Self: ...\n"
    if callable(member):
        return function_stub(name, member, types, use, "self")
    is_inherited = any(hasattr(base, name) for base in cls.__bases__)
    return "" if is_inherited else _value_stub(name, member, types)


def _is_public(name: str) -> bool:
    if keyword.iskeyword(name) or not name.isidentifier():
        return False
    return not name.startswith("_") or (name.endswith("__") and name.strip("_") in OPERATORS)


def class_stub(name: str, cls: type, types: Types) -> str:
    """The stub of one class with all that it defines itself."""
    members = vars(cls)
    parents = [types.known[_full(base)] for base in cls.__bases__ if _full(base) in types.known]
    constructor = members.get("__init__")
    constructible = inspect.isfunction(constructor) or bool(signatures(constructor.__doc__))
    use: Use = "override" if constructible and _is_interface(name) else "argument"
    body = [
        _member_stub(key, member, cls, types, use)
        for key, member in sorted(members.items())
        if _is_public(key) and (key != "__init__" or constructible)
    ]
    body.append(_iteration_stub(members, types))
    if "__members__" in members:
        own = types.known[_full(cls)]
        body.append(f"__members__: typing.Final[builtins.dict[builtins.str, {own}]]\n")
    if _has_buffer(cls):
        body.append("def __buffer__(self, flags: builtins.int, /) -> builtins.memoryview: ...\n")
    lines = "".join(body).splitlines() or ["..."]
    return "\n".join([f"class {name}({', '.join(parents)}):", *(f"    {t}" for t in lines), ""])


def _classes(owner: ModuleType | type) -> Iterator[type]:
    for name, member in vars(owner).items():
        if not isinstance(member, type) or not _is_public(name):
            continue
        if isinstance(owner, ModuleType) or member.__qualname__ == f"{owner.__qualname__}.{name}":
            yield member
            yield from _classes(member)


def module_stub(module: ModuleType) -> str:
    """The stub of an imported pybind11 module, as text."""
    known: dict[str, str] = {}
    for cls in _classes(module):
        # The bare name serves the C++ names that docstrings leak.
        known |= dict.fromkeys((_full(cls), cls.__name__), cls.__qualname__)
    types = Types(known)
    version = str(getattr(module, "__version__", "of no version"))
    parts = [HEADER.format(source=f"{module.__name__} {version}"), "__version__: builtins.str\n"]
    for name, member in sorted(vars(module).items()):
        if not _is_public(name) or isinstance(member, ModuleType):
            continue
        if isinstance(member, type):
            is_alias = member.__qualname__ != name
            alias = f"{name} = {member.__qualname__}\n"
            parts.append(alias if is_alias else class_stub(name, member, types))
        elif callable(member):
            parts.append(function_stub(name, member, types, "argument"))
        else:
            parts.append(_value_stub(name, member, types))
    return "".join(parts)
