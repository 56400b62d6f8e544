"""A web server on this machine, with as many ways to fail as mirrors have."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import threading
import time
from collections.abc import Iterator

from fdfa.data.official import Fingerprint

PIECE = 2**14


def fingerprint(content: bytes) -> Fingerprint:
    return Fingerprint(len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")


class Mirror(http.server.ThreadingHTTPServer):
    """Serves a file, or else `content`, under /FAULT/name, and writes down what it was asked."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []  # fault, Range
        self.sent = 0
        self.pause = 0.0  # between pieces, under /slow
        self.breaks = 1  # how many connections are cut, under /cut

    def url(self, fault: str, name: str = "file") -> str:
        return f"http://127.0.0.1:{self.server_port}/{fault}/{name}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""


@contextlib.contextmanager
def mirror(content: bytes) -> Iterator[Mirror]:
    server = Mirror(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Mirror

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        fault = self.path.split("/")[1]
        wanted = self.headers.get("Range")
        self.server.asked.append((fault, wanted))
        if fault == "absent":
            self.send_error(404)
        elif fault == "elsewhere":
            self.send_response(302)
            self.send_header("Location", self.path.replace("elsewhere", "good"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(fault, wanted)

    def _send(self, fault: str, wanted: str | None) -> None:
        name = self.path.rpartition("/")[2]
        content = self.server.files.get(name, self.server.content)
        if fault == "wrong":
            content = bytes(len(content))
        if fault == "page":
            content = b"<html>Please sign in.</html>"
        start = 0
        if wanted and fault != "deaf":
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(content):
                self.send_error(416)
                return
            told = start + 1 if fault == "shifted" else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {told}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if fault == "encoded":  # as Apache describes .gz files
            self.send_header("Content-Encoding", "gzip")
        if fault in {"endless", "short"}:  # no length: ends with the connection
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self._send_body(fault, body)

    def _send_body(self, fault: str, body: bytes) -> None:
        if fault == "endless":
            for _ in range(2_000):
                self._write(bytes(PIECE))
        elif fault == "short":
            self._write(body[:-7])
        elif fault == "cut" and self.server.breaks:
            self.server.breaks -= 1
            self._write(body[: len(body) // 2])
            self.close_connection = True
        elif fault == "silent":
            self._write(body[: len(body) // 2])
            time.sleep(0.8)
            self.close_connection = True
        elif fault == "slow":
            for at in range(0, len(body), PIECE):
                self._write(body[at : at + PIECE])
                time.sleep(self.server.pause)
        else:
            self._write(body)

    def _write(self, piece: bytes) -> None:
        self.wfile.write(piece)
        self.wfile.flush()
        self.server.sent += len(piece)
