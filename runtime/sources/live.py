"""Cameras ("camera:0") and network streams ("rtsp://…"): how they are named and opened."""

from __future__ import annotations

import re
import sys
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

from runtime.sources.video import LIMITS

_CAMERA = "camera:"
_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "srt")
# A playlist from the network may name further addresses, but no file of this machine.
_PROTOCOLS = "rtsp,rtsps,rtp,srtp,rtmp,rtmps,http,https,tls,tcp,udp,srt,crypto"
_SECONDS_TO_OPEN, _SECONDS_TO_READ = 15.0, 15.0


def is_live(place: str) -> bool:
    """Whether a place names a camera or a stream."""
    scheme, colon, _ = place.partition("://")
    return place.startswith(_CAMERA) or (bool(colon) and scheme.lower() in _SCHEMES)


def open_live(av: Any, place: str) -> AbstractContextManager[Any]:
    """Open a camera or stream with PyAV."""
    if place.startswith(_CAMERA):
        file, format_name = camera_device(place.removeprefix(_CAMERA), sys.platform)
        container: AbstractContextManager[Any] = av.open(file, format=format_name, options=LIMITS)
        return container
    options = {"protocol_whitelist": _PROTOCOLS, **LIMITS}
    if place.lower().startswith("rtsp"):
        # By datagrams, the default, frames are lost on a busy line.
        options["rtsp_transport"] = "tcp"
    timeout = _SECONDS_TO_OPEN, _SECONDS_TO_READ
    stream: AbstractContextManager[Any] = av.open(
        place, options=options, timeout=timeout, metadata_errors="replace"
    )
    return stream


def camera_device(device: str, platform: str) -> tuple[str, str]:
    """What FFmpeg calls a camera on a platform, and the name of its input.

    Args:
        device: a number from 0, or the platform's own name of a device.
        platform: as in `sys.platform`.
    """
    if platform == "darwin":
        return device, "avfoundation"
    if platform == "win32":
        return f"video={device}", "dshow"
    return (f"/dev/video{device}" if device.isdecimal() else device), "v4l2"


def live_name(place: str) -> str:
    """The place as it may be shown: an address without the user and password in it."""
    if place.startswith(_CAMERA):
        return place
    scheme, _, rest = place.partition("://")
    before, slash, behind = rest.partition("/")
    return f"{scheme}://{before.rpartition('@')[2]}{slash}{behind.partition('?')[0]}"


def live_stem(place: str) -> str:
    """A name for output files."""
    if place.startswith(_CAMERA):
        text = f"camera-{place.removeprefix(_CAMERA).removeprefix('/dev/')}"
    else:
        parts = urlsplit(live_name(place))
        text = f"{parts.netloc}{parts.path}"
    return re.sub(r"[^\w.]+", "-", text).strip("-.")
