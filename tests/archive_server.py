"""An archive of files, and a server that hands it out and can misbehave."""

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
DATA = zipped(FILES)


class Server(ThreadingHTTPServer):
    """Serves `data`; what it does wrong is set by its attributes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.ranges = True  # honour Range
        self.etag: str | None = '"one"'
        self.declared: int | None = None  # Content-Length instead of the true one; -1: none
        self.stop_after: int | None = None  # bytes of a body, then the connection ends ...
        self.silent_for = 0.0  # ... after these seconds
        self.pause = 0.0  # seconds after each 16 kB
        self.status = 200
        self.wrong_range = False
        self.requests: list[tuple[str | None, str | None]] = []  # Range, If-Range

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
        server, data = self.server, self.server.data
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        server.requests.append((asked, condition))
        if server.status != 200:
            self.send_error(server.status)
            return
        first = 0
        if asked and server.ranges and condition in (None, server.etag):
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            if first >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            shown = 0 if server.wrong_range else first
            self.send_header("Content-Range", f"bytes {shown}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        length = len(data) - first if server.declared is None else server.declared
        if length >= 0:
            self.send_header("Content-Length", str(length))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        body = data[first:][: server.stop_after]
        try:
            for at in range(0, len(body), 16_384):
                self.wfile.write(body[at : at + 16_384])
                time.sleep(server.pause)
            self.wfile.flush()
            time.sleep(server.silent_for)
        except ConnectionError:  # the client has had enough
            pass
