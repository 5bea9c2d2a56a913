"""A local server of one archive, which can fail in several ways."""

import hashlib
import io
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from ncp_agents.datasets.download import Archive


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


FILES = {"a.bin": np.random.default_rng(0).bytes(300_000), "deep/er/b.txt": b"hello", "empty": b""}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = zipped(FILES)
        self.status = 200
        self.missing = 0  # bytes less than Content-Length says
        self.pause = 0.0  # seconds after each 16 kB
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/demos.zip"

    @property
    def archive(self) -> Archive:
        return Archive(self.url, hashlib.sha256(self.data).hexdigest())


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests += 1
        data = server.data if server.status == 200 else b""
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(data) + server.missing))
        self.end_headers()
        for at in range(0, len(data), 16_384):
            self.wfile.write(data[at : at + 16_384])
            time.sleep(server.pause)
