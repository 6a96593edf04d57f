"""An S3 server over a folder: buckets are its sub-folders. Reads only, signatures (version 4) checked as AWS describes.

Standard library alone, so that a pod can run it from a ConfigMap:
    S3_KEY_ID=reader S3_SECRET=... python3 s3_server.py --root /models --port 9000
Without a key every bucket is public. `faults` and `seen` are for tests in the same process.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=(\w+)"
)
PAGE = 3  # objects per list answer: few, so that clients must ask for more


@dataclass
class Faults:
    """What goes wrong on purpose."""

    cut_after: int | None = None  # close the connection after so many bytes of a body, once
    status: int | None = None  # answer every request so
    on_read: threading.Event | None = None  # bodies wait for it


class S3Server(ThreadingHTTPServer):
    """`with S3Server(root) as server:` serves on a free port of the loopback until the block ends."""

    daemon_threads = True

    def __init__(self, root: Path, key: tuple[str, str] | None = None, address: tuple[str, int] = ("127.0.0.1", 0)):
        super().__init__(address, Handler)
        self.root, self.key, self.faults = root, key, Faults()
        self.seen: list[tuple[str, str]] = []  # method and path, Range after a space
        self.sent = 0  # bytes of bodies

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> S3Server:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


@dataclass
class Refusal(Exception):
    """An error as S3 says it."""

    status: int
    code: str
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def signature(secret: str, method: str, target: str, headers: Mapping[str, str], signed: str, scope: list[str]) -> str:
    """The signature that a request must have. `target` as sent; `scope` is date and region."""
    parts = urlsplit(target)
    query = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in parse_qsl(parts.query, True))
    canonical = "\n".join(
        [
            method,
            quote(unquote(parts.path), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{' '.join(headers[name].split())}" for name in signed.split(";")),
            "",
            signed,
            headers["x-amz-content-sha256"],
        ]
    )
    place = "/".join([*scope, "s3", "aws4_request"])
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], place, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (*scope, "s3", "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: S3Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            self._answer()
        except Refusal as refusal:
            text = (
                f"<?xml version='1.0'?><Error><Code>{refusal.code}</Code><Message>{refusal.message}</Message></Error>"
            )
            self._send(refusal.status, text.encode(), {"Content-Type": "application/xml"} | refusal.headers)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.server.seen.append((self.command, f"{unquote(parts.path)} {self.headers.get('Range', '')}".strip()))
        if self.server.faults.status:
            raise Refusal(self.server.faults.status, "Fault", "on purpose")
        self._check_signature()
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        folder = self.server.root / bucket
        if not bucket or not folder.is_dir():
            raise Refusal(404, "NoSuchBucket", "The specified bucket does not exist")
        if not key:
            self._list(bucket, folder, dict(parse_qsl(parts.query, True)))
            return
        file = folder / key
        if ".." in key.split("/") or not file.is_file():
            raise Refusal(404, "NoSuchKey", "The specified key does not exist.")
        self._object(file)

    def _check_signature(self) -> None:
        if self.server.key is None:
            return
        found = AUTHORIZATION.fullmatch(self.headers.get("Authorization", ""))
        if found is None:
            raise Refusal(403, "AccessDenied", "Access Denied")
        key_id, date, region, signed, given = found.groups()
        if key_id != self.server.key[0]:
            raise Refusal(403, "InvalidAccessKeyId", "The access key id does not exist in our records.")
        headers = {name.lower(): value for name, value in self.headers.items()}
        if given != signature(self.server.key[1], self.command, self.path, headers, signed, [date, region]):
            raise Refusal(403, "SignatureDoesNotMatch", "The signature we calculated does not match.")

    def _list(self, bucket: str, folder: Path, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        keys = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        keys = [key for key in keys if key.startswith(prefix)]
        if delimiter:
            inner = {
                prefix + key[len(prefix) :].split(delimiter)[0] + delimiter
                for key in keys
                if delimiter in key[len(prefix) :]
            }
            keys = [key for key in keys if delimiter not in key[len(prefix) :]]
        else:
            inner = set()
        keys = [key for key in keys if key > query.get("continuation-token", "")]
        page, more = keys[:PAGE], keys[PAGE:]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{(folder / key).stat().st_size}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{etag(folder / key)}&quot;</ETag></Contents>"
            for key in page
        )
        prefixes = "".join(
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(inner)
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        text = (
            f"<?xml version='1.0'?><ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{PAGE}</MaxKeys><IsTruncated>{'true' if more else 'false'}"
            f"</IsTruncated>{token}{contents}{prefixes}</ListBucketResult>"
        )
        self._send(200, text.encode(), {"Content-Type": "application/xml"})

    def _object(self, file: Path) -> None:
        tag, size = f'"{etag(file)}"', file.stat().st_size
        wanted = self.headers.get("If-Match", tag)
        if wanted != tag:
            raise Refusal(412, "PreconditionFailed", "At least one of the preconditions did not hold.")
        headers = {"ETag": tag, "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "Accept-Ranges": "bytes"}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found is None:
            self._send(200, file.read_bytes(), headers)
            return
        start, end = int(found[1]), min(int(found[2] or size), size - 1)
        if start >= size:
            raise Refusal(416, "InvalidRange", "The requested range is not satisfiable")
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        with file.open("rb") as opened:
            opened.seek(start)
            self._send(206, opened.read(end + 1 - start), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        faults = self.server.faults
        if faults.on_read is not None and status in (200, 206):
            faults.on_read.wait(30)
        if faults.cut_after is not None and status in (200, 206) and len(body) > faults.cut_after:
            self.wfile.write(body[: faults.cut_after])
            faults.cut_after = None
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(body)
        self.server.sent += len(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def etag(file: Path) -> str:
    """As S3 makes it of an object that was put in one piece."""
    return _digest(file, file.stat().st_mtime_ns)


@cache
def _digest(file: Path, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, default=9000)
    options = parser.parse_args()
    key = (os.environ["S3_KEY_ID"], os.environ["S3_SECRET"]) if "S3_KEY_ID" in os.environ else None
    S3Server(options.root, key, ("0.0.0.0", options.port)).serve_forever()


if __name__ == "__main__":
    main()
