"""Diagnosis of the installed packages: is each version supported?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

from export.diagnosis.finding import Finding

_CPU_ONLY = "on some machines it is a CPU-only build, with which torchvision cannot be imported"


@dataclass(frozen=True, slots=True)
class Package:
    """A requirement of `pyproject.toml`.

    Attributes:
        name: of the distribution.
        minimum: the oldest supported version.
        extra: the extra of maskport that installs it; None: the base installation.
        excluded: an unsupported series, like "2.13".
        reason: why it is unsupported.
        aliases: other distributions of the same library.
    """

    name: str
    minimum: str
    extra: str | None = None
    excluded: str = ""
    reason: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """The version specifier for pip."""
        return f">={self.minimum}" + (f",!={self.excluded}.*" if self.excluded else "")

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        return f"pip install '{'maskport' if self.extra is None else f'maskport[{self.extra}]'}'"

    @property
    def upgrade(self) -> str:
        """The command that installs a supported version."""
        return f"pip install '{self.name}{self.range}'"


_ALL = (
    Package("numpy", "1.26"),
    Package("pillow", "11"),
    Package("torch", "2.10", "export", "2.13", _CPU_ONLY),
    Package("torchvision", "0.25", "export"),
    Package("onnx", "1.21", "export"),
    Package("onnxscript", "0.7", "export"),
    Package("onnx-ir", "1.0", "export"),
    Package("safetensors", "0.5", "export"),
    Package("pyyaml", "6", "export"),
    Package("h5py", "3.10", "h5"),
    Package("onnxruntime", "1.22", "cpu"),
    Package("onnxruntime-gpu", "1.22", "gpu"),
    Package("tensorrt-rtx", "1.2", "rtx", aliases=("tensorrt-rtx-cu13",)),
    Package("tensorrt", "10.12", "tensorrt", aliases=("tensorrt-cu13", "tensorrt-cu12")),
    Package("cuda-bindings", "12.6", "engine"),
    Package("array-api-compat", "1.12", "device"),
    Package("av", "18", "video"),
    Package("tifffile", "2024.8", "tiff"),
    Package("imagecodecs", "2024.6", "tiff"),
    Package("supervision", "0.31", "supervision"),
    Package("pycocotools", "2.0.10", "eval"),
    Package("hotcoco", "1.3", "eval"),
    Package("matplotlib", "3.8", "eval"),
)
PACKAGES = {package.name: package for package in _ALL}
_WHEELS = ("onnxruntime", "onnxruntime-gpu")


def installed_version(name: str) -> str | None:
    """The version, or None where neither the package nor an alias is installed."""
    for distribution in (name, *PACKAGES[name].aliases):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def diagnose_packages() -> list[Finding]:
    """A finding for each package, and one if both wheels of ONNX Runtime are installed."""
    versions = {name: installed_version(name) for name in PACKAGES}
    findings = [_check(package, versions) for package in _ALL]
    if all(versions[wheel] is not None for wheel in _WHEELS):
        findings.append(
            Finding(
                "problem",
                "onnxruntime and onnxruntime-gpu",
                "both are installed, but they overwrite each other's files",
                "pip uninstall onnxruntime onnxruntime-gpu, then install one of them: "
                "pip install 'onnxruntime-gpu>=1.22' for a GPU, else 'onnxruntime>=1.22'",
            )
        )
    return findings


def _check(package: Package, versions: dict[str, str | None]) -> Finding:
    version = versions[package.name]
    if version is None:
        return _absent(package, versions)
    if package.excluded and _in_series(version, package.excluded):
        return Finding("problem", f"{package.name} {version}", package.reason, package.upgrade)
    if _numbers(version) < _numbers(package.minimum):
        expected = f"expected {package.range}"
        return Finding("problem", f"{package.name} {version}", expected, package.upgrade)
    return Finding("ok", f"{package.name} {version}")


def _absent(package: Package, versions: dict[str, str | None]) -> Finding:
    if package.extra is None:
        return Finding("problem", package.name, "not installed", package.remedy)
    other = next((w for w in _WHEELS if w != package.name and versions[w]), None)
    if package.name not in _WHEELS or other is None:
        return Finding("n/a", package.name, "not installed", package.remedy)
    # Installing the second wheel beside the first would break both.
    detail = f"not installed; conflicts with {other}, which is"
    remedy = f"for a GPU: pip uninstall {other}, then {package.upgrade}"
    return Finding("n/a", package.name, detail, remedy if package.extra == "gpu" else "")


def _in_series(version: str, series: str) -> bool:
    prefix = _numbers(series)
    return _numbers(version)[: len(prefix)] == prefix


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers: 2, 15, 0 for both "2.15.0+cu130" and "2.15.0rc1"."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
