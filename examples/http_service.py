"""Photos to detections over HTTP, on this machine only.

python examples/http_service.py model.onnx 8000
curl --data-binary @photo.jpg http://127.0.0.1:8000/
"""

import io
import json
import sys
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
    places = BoundedSemaphore(MOST_AT_ONCE)
    timeout = 30  # seconds for a client that sends nothing

    def do_GET(self) -> None:
        """Say that the service is up."""
        if self.path == "/health":
            return self._reply(200, {"ok": True})
        return self._reply(404, {"error": "expected GET /health, or POST an image"})

    def do_POST(self) -> None:
        """Answer what is on the photo."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            status = 413 if length.isdecimal() else 411
            return self._reply(status, {"error": f"expected at most {MOST_BYTES} bytes"})
        if not self.places.acquire(blocking=False):
            return self._reply(503, {"error": f"{MOST_AT_ONCE} photos are in work; try again"})
        try:
            self._reply(*self._detect(self.rfile.read(int(length))))
        finally:
            self.places.release()

    def _detect(self, body: bytes) -> tuple[int, dict[str, object]]:
        try:
            with Image.open(io.BytesIO(body), formats=("JPEG", "PNG", "WEBP")) as image:
                return 200, record("", self.predictor.predict(image))
        except (ImageError, OSError, Image.DecompressionBombError) as error:
            return 400, {"error": f"not an image that can be used: {error}"}
        except MaskportError as error:
            return 500, {"error": str(error)}

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
