"""An HTTP service that detects on photos, for this machine only.

python examples/http_service.py model.onnx 8000
curl --data-binary @photo.jpg http://127.0.0.1:8000/
"""

import io
import json
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from model.errors import ImageError, MaskportError
from runtime.formats.jsonl import record
from runtime.predictor import Predictor

MAX_BYTES, MAX_CONCURRENT = 20_000_000, 4


class Handler(BaseHTTPRequestHandler):
    """GET /health, and POST / with an image as the body."""

    predictor: Predictor
    # Seconds for an idle client and for a whole body; photos that are processed at once.
    timeout, slots = 30, BoundedSemaphore(MAX_CONCURRENT)

    def handle(self) -> None:
        """Serve one client, which may disconnect at any time."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Reply to a health check."""
        status = 200 if self.path == "/health" else 404
        self._reply(status, {"ok": True} if status == 200 else {"error": "expected GET /health"})

    def do_POST(self) -> None:
        """Reply with the detections on the photo."""
        if (
            not (length := self.headers.get("Content-Length", "")).isdecimal()
            or len(length) > len(str(MAX_BYTES))
            or int(length) > MAX_BYTES
        ):
            status = 413 if length.isdecimal() else 411
            return self._reply(status, {"error": f"expected at most {MAX_BYTES} bytes"})
        # A slot is acquired only after the body is received, so that slow clients hold none.
        body, end = bytearray(), time.monotonic() + self.timeout
        while time.monotonic() < end and (part := self.rfile.read1(int(length) - len(body))):
            body += part
        if not self.slots.acquire(blocking=False):
            return self._reply(503, {"error": f"{MAX_CONCURRENT} photos at once; try again"})
        try:
            image = Image.open(io.BytesIO(body), formats=("JPEG", "PNG", "WEBP"))
            status, reply = 200, record("", self.predictor.predict(image))
        except MaskportError as error:
            status, reply = 400 if isinstance(error, ImageError) else 500, {"error": str(error)}
        except Exception:  # Pillow's plugins raise exceptions of any type
            status, reply = 400, {"error": "expected a JPEG, PNG or WebP image"}
        finally:
            self.slots.release()
        return self._reply(status, reply)

    def _reply(self, status: int, reply: dict[str, object]) -> None:
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Handler.predictor = Predictor.open(sys.argv[1])
    Handler.predictor.warm_up()
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
