"""What whoever starts a server decides."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from napari_mamba.errors import InputError

TOKEN_VARIABLE = "NAPARI_MAMBA_SERVER_TOKEN"
SHORTEST_TOKEN = 16
CLUSTER = "cluster"
"""The name of the queue of runs that a Dask cluster computes."""
GIGABYTE = 1 << 30


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes
    ----------
    host, port : str, int
        Address to listen on.
    folder : Path
        For uploads and results; what is in it is deleted at the start.
    token : str
        What a client has to send; empty: none, on the loopback alone.
    devices : tuple of str
        Devices to compute on, each with a queue of its own; empty: those that the machine has.
    scheduler : str
        Address of a Dask scheduler: runs go to its cluster, of whose workers `folder` is seen. It has a queue beside
        those of `devices`, and is the only one where none are named.
    largest_upload : int
        Bytes of one file.
    largest_run : int
        Bytes of all files of one run.
    most_runs : int
        Runs that may be there at a time.
    stalled_seconds : float
        An upload that brings nothing for so long is ended.
    gone_seconds : float
        A run whose client asks nothing for so long is ended and deleted.

    Raises
    ------
    InputError
        If another address than the loopback is to be served without a token, or the token is short.
    """

    host: str = "127.0.0.1"
    port: int = 8471
    folder: Path = Path()
    token: str = ""
    devices: tuple[str, ...] = ()
    scheduler: str = ""
    largest_upload: int = 4 * GIGABYTE
    largest_run: int = 16 * GIGABYTE
    most_runs: int = 32
    stalled_seconds: float = 30.0
    gone_seconds: float = 120.0

    def __post_init__(self) -> None:
        if not self.token and not is_loopback(self.host):
            raise InputError(
                f"{self.host} can be reached by other computers: set a token, by --token-file or the variable "
                f"{TOKEN_VARIABLE}"
            )
        if self.token and len(self.token) < SHORTEST_TOKEN:
            raise InputError(f"the token is too short to be a secret: give at least {SHORTEST_TOKEN} characters")
        if not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise InputError("a token is made of printable ASCII characters without spaces: make another one")

    @property
    def queues(self) -> tuple[str, ...]:
        """Names of the queues; empty: the devices that the machine has."""
        return (CLUSTER, *self.devices) if self.scheduler else self.devices


def is_loopback(host: str) -> bool:
    """Whether an address is this computer's own.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: Path | None) -> str:
    """The token from a file or the variable; empty where there is neither.

    Raises
    ------
    InputError
        If the file cannot be read or is empty.
    """
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the token in {path} cannot be read: name a text file that holds it") from error
    if not token:
        raise InputError(f"{path} is empty: write the token into it")
    return token
