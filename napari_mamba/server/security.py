"""Who may ask: a token where there is one, and never a web page in somebody's browser."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any
from urllib.parse import urlsplit

from napari_mamba.server.settings import Settings, is_loopback

LARGEST_JSON = 1 << 20
_OPEN = ("/healthz",)


class Gate:
    """ASGI middleware in front of the application: answers 401, 403 or 413 itself."""

    def __init__(self, app: Any, settings: Settings):
        self.app, self.settings = app, settings

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refused = self._refused(scope["path"], headers)
        if refused is None and scope["method"] != "PUT":
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > LARGEST_JSON or "transfer-encoding" in headers:
                refused = (413, "the request is too large: send files with PUT")
        if refused is not None:
            await _answer(send, *refused)
            return
        if scope["method"] == "PUT":  # a file, whose chunks are waited for where they are written
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(_whole(receive), self.settings.stalled_seconds)
        except TimeoutError:
            await _answer(send, 408, "the request took too long to arrive: send it again")
            return
        if body is not None:
            await self.app(scope, _again(body, receive), send)

    def _refused(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        if "origin" in headers:  # only browsers send it: a page must not reach a server on the reader's own computer
            return 403, "this server is not for web pages"
        if not self.settings.token:
            host = urlsplit("//" + headers.get("host", "")).hostname or ""
            return None if is_loopback(host) else (403, "this server answers to its loopback address alone")
        if path in _OPEN:
            return None
        given = headers.get("authorization", "").encode("latin-1")
        if not secrets.compare_digest(given, f"Bearer {self.settings.token}".encode("latin-1")):
            return 401, "the token is missing or wrong"
        return None


async def _whole(receive: Any) -> bytes | None:
    """A small request's body; None if the client went away before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Any) -> Any:
    """`receive` for the application: the body that was read, then whatever comes."""
    given = False

    async def next_message() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


async def _answer(send: Any, status: int, sentence: str) -> None:
    import json

    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
