"""Cameras ("camera:0") and network streams ("rtsp://…"): names, and how to open them."""

from __future__ import annotations

import re
import sys
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

from runtime.sources.video import LIMITS

_CAMERA = "camera:"
_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "srt")
# A playlist from the network may refer to other addresses, but not to local files.
_PROTOCOLS = "rtsp,rtsps,rtp,srtp,rtmp,rtmps,http,https,tls,tcp,udp,srt,crypto"
_SECONDS_TO_OPEN, _SECONDS_TO_READ = 15.0, 15.0


def is_live(source: str) -> bool:
    """Whether this names a camera or a stream."""
    scheme, colon, _ = source.partition("://")
    return source.startswith(_CAMERA) or (bool(colon) and scheme.lower() in _SCHEMES)


def open_live(av: Any, source: str) -> AbstractContextManager[Any]:
    """Open a camera or stream with PyAV."""
    if source.startswith(_CAMERA):
        file, format_name = camera_device(source.removeprefix(_CAMERA), sys.platform)
        container: AbstractContextManager[Any] = av.open(file, format=format_name, options=LIMITS)
        return container
    options = {"protocol_whitelist": _PROTOCOLS, **LIMITS}
    if source.lower().startswith("rtsp"):
        # UDP, the default, loses frames on a busy network.
        options["rtsp_transport"] = "tcp"
    timeout = _SECONDS_TO_OPEN, _SECONDS_TO_READ
    stream: AbstractContextManager[Any] = av.open(
        source, options=options, timeout=timeout, metadata_errors="resource"
    )
    return stream


def camera_device(device: str, platform: str) -> tuple[str, str]:
    """FFmpeg's name of a camera on a platform, and of its input format.

    Args:
        device: an index from 0, or the platform's own device name.
        platform: as in `sys.platform`.
    """
    if platform == "darwin":
        return device, "avfoundation"
    if platform == "win32":
        return f"video={device}", "dshow"
    return (f"/dev/video{device}" if device.isdecimal() else device), "v4l2"


def live_name(source: str) -> str:
    """The source for display: an address without user, password and query."""
    if source.startswith(_CAMERA):
        return source
    scheme, _, address = source.partition("://")
    host, slash, path = address.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def live_stem(source: str) -> str:
    """The stem of its output files."""
    if source.startswith(_CAMERA):
        text = f"camera-{source.removeprefix(_CAMERA).removeprefix('/dev/')}"
    else:
        parts = urlsplit(live_name(source))
        text = f"{parts.netloc}{parts.path}"
    return re.sub(r"[^\w.]+", "-", text).strip("-.")
