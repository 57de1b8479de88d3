"""Requests to one server, as docs/server.md describes them."""

from __future__ import annotations

import ipaddress
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from napari_mamba.errors import InputError, RunError

ANSWER_S, SILENCE_S, UPLOAD_S = 60.0, 30.0, 600.0
_BLOCK = 1 << 20


class Stopped(Exception):
    """The user does not want the answer any more."""


class BrokenOff(RunError):
    """The connection ended in the middle of something that can be taken up again."""


def checked_address(text: str) -> str:
    """An address as `https://host:port`.

    Raises
    ------
    InputError
        If it is none.

    Examples
    --------
    >>> checked_address(" http://127.0.0.1:8471/ ")
    'http://127.0.0.1:8471'
    """
    try:
        parts = urlsplit(text.strip())
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known or parts.username or parts.query or parts.fragment:
        raise InputError(f"'{text.strip()[:80]}' is no address of a server: write it as https://host:8471")
    return f"{parts.scheme}://{parts.netloc}"


def is_this_computer(address: str) -> bool:
    """Whether what is sent there stays on this computer.

    Examples
    --------
    >>> is_this_computer("http://127.0.0.1:8471"), is_this_computer("https://gpu.example.org")
    (True, False)
    """
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token is for one server: it is not carried to where that one points."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Connection:
    """Requests to one server.

    Parameters
    ----------
    address : str
    token : str
        Empty where the server asks for none.
    stopped : callable
        Asked between two blocks of a transfer: True ends it with `Stopped`.
    """

    def __init__(self, address: str, token: str = "", stopped: Callable[[], bool] = lambda: False):
        self.address, self._token, self._stopped = checked_address(address), token, stopped
        handlers: list[Any] = [_NoRedirects()]
        if is_this_computer(self.address):
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy cannot reach this computer's own servers
        self._opener = urllib.request.build_opener(*handlers)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request with a JSON body, where there is one, and a JSON answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        with self._open(method, path, data, headers) as answer:
            text = answer.read()
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise RunError(f"{self.address} is no server of napari-mamba: check the address") from error

    def upload(self, run: str, case: int, channel: int, path: Path) -> None:
        """Send a file as it lies on the disk, block by block."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        with open(path, "rb") as file:
            target = f"/v1/runs/{run}/inputs/{case}/{channel}"
            self._open("PUT", target, _Watched(file, self._stopped), headers, UPLOAD_S).close()

    def download(self, run: str, case: int, name: str, path: Path) -> None:
        """Receive an output, block by block."""
        with self._open("GET", f"/v1/runs/{run}/outputs/{case}/{name}") as answer, open(path, "wb") as file:
            expected, size = answer.headers.get("Content-Length"), 0
            try:
                while block := answer.read(_BLOCK):
                    if self._stopped():
                        raise Stopped
                    size += file.write(block)
            except OSError as error:
                raise BrokenOff(f"the connection to {self.address} broke off: try again") from error
        if expected is not None and size != int(expected):
            raise BrokenOff(f"the download of {name} broke off: try again")

    def events(self, run: str, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and event of each server-sent event beyond `after`, until the server ends the stream."""
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        number = after
        with self._open("GET", f"/v1/runs/{run}/events", headers=headers, timeout=SILENCE_S) as answer:
            try:
                for line in answer:
                    if self._stopped():
                        raise Stopped
                    if line.startswith(b"id:"):
                        number = int(line[3:])
                    elif line.startswith(b"data:"):
                        yield number, json.loads(line[5:])
            except (OSError, ValueError) as error:
                raise BrokenOff(f"the connection to {self.address} broke off: try again") from error

    def _open(
        self, method: str, path: str, data: Any = None, headers: Any = None, timeout: float = ANSWER_S
    ) -> Any:  # an HTTPResponse
        request = urllib.request.Request(self.address + path, data, dict(headers or {}), method=method)
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            return self._opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            raise RunError(_refusal(error)) from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLError):
                why = "it is self-signed, or of another host" if "verify" in str(reason) else "it does not speak TLS"
                raise RunError(f"the certificate of {self.address} cannot be trusted: {why}") from error
            said = f"the server at {self.address} cannot be reached: check the address, and that it runs"
            raise BrokenOff(said) from error


class _Watched:
    """A file that is sent block by block, until the user does not want it sent any more."""

    def __init__(self, file: Any, stopped: Callable[[], bool]):
        self._file, self._stopped = file, stopped

    def read(self, count: int = -1) -> bytes:
        if self._stopped():
            raise Stopped
        return self._file.read(count)


def _refusal(error: urllib.error.HTTPError) -> str:
    """The server's sentence, or what its status means."""
    try:
        detail = json.loads(error.read(1 << 16)).get("detail")
    except (OSError, ValueError, AttributeError):
        detail = None
    if isinstance(detail, str) and detail:
        return " ".join(detail.split())[:400]
    return f"the server refused with the status {error.code}: check the address, and the version of napari-mamba there"
