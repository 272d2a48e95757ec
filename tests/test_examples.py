"""The examples run as commands, on the demo model and the sample photo."""

from __future__ import annotations

import ast
import http.client
import io
import json
import os
import re
import runpy
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runtime.detections import Detections
from runtime.masks import rle
from runtime.predictor import Predictor
from tests import interrupts

ROOT = Path(__file__).resolve().parents[1]
SERVICE = ROOT / "examples" / "http_service.py"
JOB = ROOT / "examples" / "folder_job.py"


@pytest.fixture(scope="module")
def port(demo_onnx: Path) -> Iterator[int]:
    """The service on a free port."""
    with interrupts.python([SERVICE, demo_onnx, 0], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", line)
        assert address, line
        yield int(address[1])


def request(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_the_service_returns_the_predictors_detections(
    port: int, demo_onnx: Path, demo_photo: Path
) -> None:
    status, reply = request(port, "POST", "/", demo_photo.read_bytes())
    assert status == 200
    with Predictor.open(demo_onnx) as predictor:
        detections = predictor.predict(demo_photo)
    rows = reply["detections"]
    assert isinstance(rows, list)
    assert (reply["height"], reply["width"]) == detections.image_hw
    assert [row["name"] for row in rows] == list(detections.names)
    assert len(rows) > 15
    masks = detections.masks
    assert masks is not None
    for row, mask in zip(rows, masks, strict=True):
        assert np.mean(rle.decode(row["rle"]) != mask) < 1e-4


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        pytest.param("POST", "/", b"no photo", {}, 400, id="garbage"),
        pytest.param("POST", "/", b"", {}, 400, id="empty"),
        pytest.param("POST", "/", None, {"Content-Length": f"{20_000_001}"}, 413, id="too-large"),
        pytest.param("POST", "/", None, {"Content-Length": "9" * 9}, 413, id="many-digits"),
        pytest.param("POST", "/", None, {"Content-Length": "-5"}, 411, id="negative-length"),
        pytest.param("POST", "/", None, {"Content-Length": "some"}, 411, id="no-length"),
        pytest.param("GET", "/health", None, {}, 200, id="health"),
        pytest.param("GET", "/other", None, {}, 404, id="other-path"),
    ],
)
def test_the_service_reports_errors(
    port: int, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    got, reply = request(port, method, path, body, **headers)
    assert got == status
    assert reply == {"ok": True} if status == 200 else reply["error"]
    assert " at 0x" not in str(reply)


def test_a_truncated_photo_is_an_error_of_the_client(port: int, demo_photo: Path) -> None:
    whole = demo_photo.read_bytes()
    status, reply = request(port, "POST", "/", whole[: len(whole) // 2])
    assert status == 400
    assert "truncated" in str(reply["error"])
    assert request(port, "POST", "/", whole)[0] == 200


class Small:
    """A predictor without detections; `may_return` releases its calls."""

    def __init__(self) -> None:
        self.may_return, self.calls = threading.Event(), threading.Semaphore(0)
        self.may_return.set()

    def predict(self, image: Image.Image) -> Detections:
        self.calls.release()
        assert self.may_return.wait(20)
        none = np.zeros((0, 4), np.float32)
        return Detections(none, none[:, 0], none[:, 0].astype(np.int64), (), None, image.size[::-1])


class WaitingServer(ThreadingHTTPServer):
    """Closing it waits for all clients."""

    daemon_threads = False


@pytest.fixture
def service() -> Iterator[ThreadingHTTPServer]:
    """The service in this process, with a predictor without detections and a timeout of 1 s."""
    handler = runpy.run_path(str(SERVICE))["Handler"]

    class ShortTimeout(handler):  # type: ignore[misc, valid-type]
        predictor, timeout = Small(), 1

    with WaitingServer(("127.0.0.1", 0), ShortTimeout) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def begin(port: int, body: bytes, length: int) -> socket.socket:
    """A client that sends `body` after it has announced `length` bytes."""
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % length + body)
    return client


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "PNG")
    return file.getvalue()


def test_clients_that_have_not_sent_their_photo_take_no_slot(
    service: ThreadingHTTPServer,
) -> None:
    slow = [begin(service.server_port, b"x", 1000) for _ in range(4)]
    status, reply = request(service.server_port, "POST", "/", png())
    assert (status, reply["height"]) == (200, 6)
    for client in slow:
        client.close()


def test_a_fifth_concurrent_photo_is_refused(service: ThreadingHTTPServer) -> None:
    small = service.RequestHandlerClass.predictor  # type: ignore[attr-defined]
    small.may_return.clear()
    waiting = [begin(service.server_port, png(), len(png())) for _ in range(4)]
    assert all(small.calls.acquire(timeout=20) for _ in waiting)
    assert request(service.server_port, "POST", "/", png())[0] == 503
    small.may_return.set()
    assert all(client.recv(12) == b"HTTP/1.0 200" for client in waiting)
    for client in waiting:
        client.close()


@pytest.mark.timeout(60)
def test_a_photo_that_arrives_slowly_times_out(service: ThreadingHTTPServer) -> None:
    with begin(service.server_port, b"x", 1000) as client:
        client.settimeout(0.2)
        reply = b""
        while not reply:
            client.sendall(b"x")
            with suppress(TimeoutError):
                reply = client.recv(12)
    assert reply == b"HTTP/1.0 400"


def test_a_client_that_disconnects_is_no_error(
    service: ThreadingHTTPServer, capfd: pytest.CaptureFixture[str]
) -> None:
    for body in (png()[:20], png()):
        with begin(service.server_port, body, len(png())) as client:
            # With this option closing resets the connection.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Clients are accepted in order, so both are being served after this one.
    assert request(service.server_port, "GET", "/health")[0] == 200
    service.shutdown()
    service.server_close()
    assert "Traceback" not in capfd.readouterr().err


def test_the_service_is_forty_statements() -> None:
    tree = ast.parse(SERVICE.read_text("utf-8"))
    lines = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and not isinstance(node, ast.Import | ast.ImportFrom)
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for line in (
            [node.lineno] if hasattr(node, "body") else range(node.lineno, node.end_lineno + 1)
        )
    }
    assert 20 < len(lines) <= 40


@pytest.fixture
def folder(tmp_path: Path, demo_pixels: NDArray[np.uint8], demo_photo: Path) -> Path:
    """Two photos, and between them a file that is not an image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(demo_photo, folder / "a.jpg")
    (folder / "b.jpg").write_bytes(b"no photo")
    shutil.copy(demo_photo, folder / "c.jpg")
    return folder


def run_job(model: Path, folder: Path, results: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(JOB), str(model), str(folder), str(results)],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_folder_job_counts_failures_and_resumes(
    demo_onnx: Path, demo_photo: Path, folder: Path
) -> None:
    results = folder.parent / "results.jsonl"
    done = run_job(demo_onnx, folder, results)
    assert done.returncode == 1
    assert re.search(r"^error: .*b\.jpg: unknown image format", done.stderr, re.MULTILINE)
    assert done.stdout == "2 photos written, 0 already there, 1 failed\n"
    first = lines(results)
    assert [Path(str(row["image"])).name for row in first] == ["a.jpg", "c.jpg"]
    assert first[0]["detections"] == first[1]["detections"]
    # Killed in the middle of a line; then the bad photo is repaired, and one is added.
    with results.open("ab") as file:
        file.write(b'{"image": "half')
    shutil.copy(demo_photo, folder / "b.jpg")
    shutil.copy(demo_photo, folder / "d.jpg")
    done = run_job(demo_onnx, folder, results)
    assert (done.returncode, done.stdout) == (0, "2 photos written, 2 already there, 0 failed\n")
    second = lines(results)
    assert second[:2] == first
    assert [Path(str(row["image"])).name for row in second] == ["a.jpg", "c.jpg", "b.jpg", "d.jpg"]
    assert (
        run_job(demo_onnx, folder, results).stdout
        == "0 photos written, 4 already there, 0 failed\n"
    )
    assert lines(results) == second


def test_a_folder_job_without_photos_is_an_error(demo_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run_job(demo_onnx, tmp_path / "empty", tmp_path / "results.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "no photos found" in done.stderr
