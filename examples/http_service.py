"""Photos to detections over HTTP, on this machine only.

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

MOST_BYTES, MOST_AT_ONCE = 20_000_000, 4


class Handler(BaseHTTPRequestHandler):
    """GET /health, and POST / with an image as the body."""

    predictor: Predictor
    # Seconds for a client that sends nothing, and for a whole body; photos in work at once.
    timeout, places = 30, BoundedSemaphore(MOST_AT_ONCE)

    def handle(self) -> None:
        """Serve one client, which may leave when it likes."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Say that the service is up."""
        status = 200 if self.path == "/health" else 404
        self._reply(status, {"ok": True} if status == 200 else {"error": "expected GET /health"})

    def do_POST(self) -> None:
        """Answer what is on the photo."""
        if (
            not (length := self.headers.get("Content-Length", "")).isdecimal()
            or len(length) > len(str(MOST_BYTES))
            or int(length) > MOST_BYTES
        ):
            status = 413 if length.isdecimal() else 411
            return self._reply(status, {"error": f"expected at most {MOST_BYTES} bytes"})
        # A place is taken only once the body is here, so that slow clients hold none.
        body, end = bytearray(), time.monotonic() + self.timeout
        while time.monotonic() < end and (part := self.rfile.read1(int(length) - len(body))):
            body += part
        if not self.places.acquire(blocking=False):
            return self._reply(503, {"error": f"{MOST_AT_ONCE} photos are in work; try again"})
        try:
            image = Image.open(io.BytesIO(body), formats=("JPEG", "PNG", "WEBP"))
            status, answer = 200, record("", self.predictor.predict(image))
        except MaskportError as error:
            status, answer = 400 if isinstance(error, ImageError) else 500, {"error": str(error)}
        except Exception:  # Pillow's plugins raise whatever their code runs into
            status, answer = 400, {"error": "expected a JPEG, PNG or WebP image"}
        finally:
            self.places.release()
        return self._reply(status, answer)

    def _reply(self, status: int, answer: dict[str, object]) -> None:
        body = json.dumps(answer).encode()
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
