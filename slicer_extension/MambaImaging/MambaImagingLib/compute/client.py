"""What the client says to `napari-mamba serve`, with nothing but `requests`, which Slicer ships."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECT_SECONDS, ANSWER_SECONDS, SILENCE_SECONDS = 10.0, 60.0, 30.0
_BLOCK = 1 << 20


class ServerError(Exception):
    """The server refused or cannot be reached; the message is a sentence for the user."""


class Stopped(Exception):
    """The user does not want the answer any more."""


def checked_address(text: str) -> str:
    """An address as `https://host:port`.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> checked_address(" http://127.0.0.1:8471/ ")
    'http://127.0.0.1:8471'
    """
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError(f"{text[:80]!r} is no address of a server: write it as https://host:8471")
    return f"{parts.scheme}://{parts.netloc}"


def is_this_computer(address: str) -> bool:
    """Whether data sent there stay on this computer."""
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Client:
    """A connection to one server.

    Parameters
    ----------
    address : str
    token : str
    stopped : callable
        Asked between two blocks of a transfer: True ends it with `Stopped`.
    """

    def __init__(self, address: str, token: str = "", stopped: Callable[[], bool] = lambda: False):
        import requests

        self.address, self.stopped = checked_address(address), stopped
        self._session = requests.Session()
        if is_this_computer(address):
            self._session.trust_env = False  # a proxy cannot reach this computer's own servers
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """A request with a JSON answer."""
        answer = self._request(method, path, **more)
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise ServerError(f"{self.address} is no server of napari-mamba: check the address") from error

    def _request(self, method: str, path: str, **more: Any) -> Any:
        import requests

        more.setdefault("timeout", (CONNECT_SECONDS, ANSWER_SECONDS))
        try:
            answer = self._session.request(method, self.address + path, allow_redirects=False, **more)
        except requests.exceptions.SSLError as error:
            raise ServerError(f"the certificate of {self.address} cannot be trusted: {_reason(error)}") from error
        except requests.exceptions.RequestException as error:
            raise ServerError(f"{self.address} cannot be reached: check the address, and that it runs") from error
        if answer.status_code >= 300:
            raise ServerError(_refusal(answer))
        return answer

    def create(self, request: dict[str, Any]) -> str:
        """A new run; returns its id."""
        return str(self.ask("POST", "/v1/runs", json=request)["id"])

    def upload(self, run: str, case: int, channel: int, path: Path) -> None:
        """Send a file as it lies on the disk, a block at a time."""
        with open(path, "rb") as file:
            body = _Watched(file, path.stat().st_size, self.stopped)
            headers = {"Content-Type": "application/octet-stream"}
            self._request(
                "PUT",
                f"/v1/runs/{run}/inputs/{case}/{channel}",
                data=body,
                headers=headers,
                timeout=(CONNECT_SECONDS, 600),
            )

    def download(self, what: str, path: Path) -> None:
        """Receive a file of a run, `ID/outputs/CASE/NAME` or `ID/maps/NUMBER`, a block at a time."""
        with self._request("GET", f"/v1/runs/{what}", stream=True) as answer:
            expected, size = answer.headers.get("Content-Length"), 0
            with open(path, "wb") as file:
                for block in answer.iter_content(_BLOCK):
                    if self.stopped():
                        raise Stopped
                    size += file.write(block)
        if expected is not None and size != int(expected):
            raise ServerError(f"the download of {what.partition('/')[2]} broke off: try again")

    def events(self, run: str, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and event of each server-sent event beyond `after`, until the server ends the stream."""
        import requests

        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        path, timeout = f"/v1/runs/{run}/events", (CONNECT_SECONDS, SILENCE_SECONDS)
        with self._request("GET", path, stream=True, headers=headers, timeout=timeout) as answer:
            number = after
            try:
                for line in answer.iter_lines(chunk_size=1):
                    if self.stopped():
                        raise Stopped
                    if line.startswith(b"id:"):
                        number = int(line[3:])
                    elif line.startswith(b"data:"):
                        yield number, json.loads(line[5:])
            except (requests.exceptions.RequestException, ValueError) as error:
                raise ServerError(f"the connection to {self.address} broke off") from error

    def close(self) -> None:
        """End the connection."""
        self._session.close()


class _Watched:
    """A file that `requests` sends block by block, with its length, until the user does not want it any more."""

    def __init__(self, file: Any, size: int, stopped: Callable[[], bool]):
        self._file, self._size, self._stopped = file, size, stopped

    def __len__(self) -> int:
        return self._size

    def read(self, count: int = -1) -> bytes:
        if self._stopped():
            raise Stopped
        return self._file.read(count)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "it is self-signed or of another host" if "verify failed" in text else text[:200]


def _refusal(answer: Any) -> str:
    """The server's sentence, or what its status means."""
    try:
        detail = answer.json().get("detail")
    except (ValueError, AttributeError):
        detail = None
    if isinstance(detail, str) and detail:
        return detail[:400]
    return f"the server refused with the status {answer.status_code}: check the address and the version of napari-mamba"
