from __future__ import annotations

import ast
from types import ModuleType

import pytest

from tests.typing.pybind_stubs import Types, Use, function_stub, module_stub, signatures

KNOWN = {
    "m.native.Builder": "Builder",
    "m.native.Dims": "Dims",
    "m.native.IEngine": "IEngine",
    "m.native.ILogger.Severity": "ILogger.Severity",
    "m.native.Weights": "Weights",
    "Builder": "Builder",
    "IEngine": "IEngine",
}
OVERLOADED = """shape(*args, **kwargs)
Overloaded function.

1. shape(self: m.native.Builder, name: str, shape: tuple) -> bool

    1. not a signature

2. shape(self: m.native.Builder, name: str) -> bool

3. shape(self: m.native.Builder, name: str) -> bool
"""


class Documented:
    """Like a pybind11 function: callable, with nothing but a docstring."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __call__(self, *arguments: object) -> None:
        raise NotImplementedError


def stub(doc: str, use: Use = "argument", owner: str = "self") -> str:
    text = function_stub("f", Documented(doc), Types(KNOWN), use, owner)
    return text.replace("builtins.", "").replace("typing.", "").replace(":\n    ...\n", "")


def test_method(subtests: pytest.Subtests) -> None:
    for case, signature, expected in [
        ("no argument", "f(self: m.native.Builder) -> None", "def f(self) -> None"),
        (
            "default",
            "f(self: m.native.Builder, name: str, flags: typing.SupportsInt = 0) -> int",
            "def f(self, name: str, flags: SupportsIndex=...) -> int",
        ),
        (
            "default None",
            "f(self: m.native.Builder, w: m.native.Builder = None) -> bool",
            "def f(self, w: Builder | None=...) -> bool",
        ),
        (
            "default by repr, nested class",
            "f(self: object, level: m.native.ILogger.Severity = <Severity.WARNING: 2>) -> None",
            "def f(self, level: ILogger.Severity=...) -> None",
        ),
        (
            "unnamed arguments",
            "f(self: m.native.Builder, arg0: str, arg1: str) -> m.native.Dims",
            "def f(self, arg0: str, arg1: str, /) -> Dims",
        ),
        ("by position", "f(self: object, /) -> str", "def f(self, /) -> str"),
        (
            "argument named as a keyword, bare list",
            "f(self: object, in: list[str], out: list) -> object",
            "def f(self, arg15: list[str], /, out: list[Any]) -> Any",
        ),
        ("may be null", "f(self: object) -> m.native.IEngine", "def f(self) -> IEngine | Any"),
        (
            "name leaked from C++",
            "f(self: object, e: m.native.IEngine) -> nvinfer1::v_1_0::IBuilder",
            "def f(self, e: IEngine) -> Builder",
        ),
        (
            "template leaked from C++",
            "f(self: object) -> detail::accessor<detail::policies::str_attr>",
            "def f(self) -> Any",
        ),
        (
            "converted",
            "f(self: object, d: m.native.Dims, w: m.native.Weights) -> m.native.Dims",
            "def f(self, d: Dims | collections.abc.Sequence[SupportsIndex], w: Weights | Any)"
            " -> Dims",
        ),
        (
            "arrays, capsules, buffers",
            "f(self: object, a: numpy.ndarray[numpy.float32], c: typing_extensions.CapsuleType,"
            " b: typing_extensions.Buffer) -> typing.Annotated[list[int], 'n']",
            "def f(self, a: Any, c: Any, b: typing_extensions.Buffer) -> list[int]",
        ),
        (
            "callable, union, tuple",
            "f(self: object, g: collections.abc.Callable[[int], str] | None) -> tuple[int, ...]",
            "def f(self, g: collections.abc.Callable[[int], str] | None) -> tuple[int, ...]",
        ),
        (
            "not Python",
            "f(self: object, a: int = 0, b: int) -> int",
            "def f(self, *args: Any, **kwargs: Any) -> Any",
        ),
        ("no docstring", "", "def f(self, *args: Any, **kwargs: Any) -> Any"),
    ]:
        with subtests.test(case):
            text = stub(f"{signature}\n\n    Prose (of a kind) -> here.\n")
            assert text == expected
            ast.parse(f"{text}: ...")


def test_functions_and_overrides() -> None:
    text = stub("f(self: m.native.IEngine, n: typing.SupportsInt) -> bool", "override")
    assert text == "def f(self, n: int) -> bool"
    assert stub("f(n: str) -> bool", owner="") == "def f(n: str) -> bool"
    assert stub("f(n: str) -> bool", owner="static") == "@staticmethod\ndef f(n: str) -> bool"


def test_overloads() -> None:
    assert len(signatures(OVERLOADED)) == 3
    first, second = stub(OVERLOADED).split("@overload\n")[1:]
    assert first == "def f(self, name: str, shape: tuple[Any, ...]) -> bool"
    assert second == "def f(self, name: str) -> bool"


def fake_module() -> ModuleType:
    """Three classes and an instance, as a pybind11 module holds them."""
    module = ModuleType("fake")
    severity = type("Severity", (), {"__module__": "fake", "__qualname__": "ILogger.Severity"})
    size = property(Documented("(arg0: fake.ILogger) -> int"))
    level = property(
        Documented("(arg0: fake.ILogger) -> fake.ILogger.Severity"),
        Documented("(arg0: fake.ILogger, arg1: fake.ILogger.Severity) -> None"),
    )
    write_only = property(None, Documented("(arg0: fake.ILogger, arg1: fake.ILogger) -> None"))
    items = {
        "__getitem__": Documented("f(self: fake.ILogger, arg0: typing.SupportsInt) -> str"),
        "__len__": Documented("f(self: fake.ILogger) -> int"),
    }
    members = {"size": size, "level": level, "sink": write_only, "Severity": severity, **items}
    logger = type("ILogger", (), {"__module__": "fake", **members})
    derived = type("Logger", (logger,), {"__module__": "fake", "Severity": severity})
    vars(module).update(ILogger=logger, Logger=derived, bool=severity(), __version__="1.2")
    return module


def test_module() -> None:
    text = module_stub(fake_module())
    tree = ast.parse(text)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    logger = ast.unparse(classes["ILogger"])
    assert "from fake 1.2" in text
    assert "bool: typing.Final[ILogger.Severity]" in text
    assert "Severity = ILogger.Severity" in ast.unparse(classes["Logger"])
    assert [ast.unparse(base) for base in classes["Logger"].bases] == ["ILogger"]
    assert "size.setter" not in logger
    assert "def level(self, value: ILogger.Severity) -> None" in logger
    assert "def sink(self) -> builtins.object" in logger
    assert "def sink(self, value: ILogger | None) -> None" in logger
    assert "def __iter__(self) -> collections.abc.Iterator[builtins.str]" in logger
