"""A Hugging Face hub of one repository, `org/name`, over a folder: what its client asks for, and no more."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """`with HubServer(folder) as hub:` serves `hub.url`. With a `token` the repository is gated."""

    daemon_threads = True

    def __init__(self, folder: Path, token: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.token = folder, token
        self.seen: list[str] = []
        self.cut_after: int | None = None  # bytes of a body, then the connection is gone

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append(f"{self.command} {path}")
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model org/name is restricted."}
            self._send(403 if "Authorization" in self.headers else 401, b"{}", headers)
        elif path.startswith("/api/models/org/name/revision/"):
            self._revision(path.rsplit("/", 1)[1])
        elif path.startswith("/api/models/org/name/tree/"):
            self._json([self._entry(file) for file in self._files()])
        elif path.startswith("/org/name/resolve/"):
            self._file(self.server.folder / path.split("/", 5)[5])
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def _files(self) -> list[Path]:
        return sorted(path for path in self.server.folder.iterdir() if path.is_file())

    def _entry(self, file: Path) -> dict[str, object]:
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file)}

    def _revision(self, revision: str) -> None:
        if revision not in ("main", "v1", COMMIT):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": file.name} for file in self._files()]
        self._json({"id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": siblings})

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        self._send(200, file.read_bytes(), {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": COMMIT})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: self.server.cut_after])
            self.close_connection = self.close_connection or len(body) > (self.server.cut_after or len(body))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
