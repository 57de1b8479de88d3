"""Servers that the user has named, each with where its token lies and whether data may be sent to it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_mamba.errors import InputError
from napari_mamba.server.client.connection import checked_address, is_this_computer

VARIABLE = "NAPARI_MAMBA_SERVER_TOKEN"


@dataclass(frozen=True)
class Server:
    """One server.

    Parameters
    ----------
    address : str
        As `https://host:port`.
    token_file : str
        The file whose first line is the token; where it is empty, the variable `NAPARI_MAMBA_SERVER_TOKEN` counts.
    consent : bool
        The user agreed that images are sent there.
    """

    address: str
    token_file: str = ""
    consent: bool = False

    @property
    def allowed(self) -> bool:
        """Whether images may be sent there: to this computer itself, or where the user agreed."""
        return self.consent or is_this_computer(self.address)

    def token(self, environment: Mapping[str, str] = os.environ) -> str:
        """The token, read when it is needed and kept nowhere.

        Raises
        ------
        InputError
            If its file cannot be read.
        """
        if not self.token_file:
            return environment.get(VARIABLE, "").strip()
        try:
            with open(Path(self.token_file).expanduser(), encoding="utf-8") as file:
                return file.readline(4096).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the token's file cannot be read: check {self.token_file}") from error


class KnownServers:
    """The named servers, kept in a file that holds no token.

    Parameters
    ----------
    path : Path
        Of the file; one that is missing or damaged counts as empty.
    """

    def __init__(self, path: Path):
        self._path = path

    @property
    def servers(self) -> list[Server]:
        """Those that were named, the oldest first."""
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            found = [Server(str(e["address"]), str(e["token_file"]), e["consent"] is True) for e in entries]
            return [one for one in found if checked_address(one.address) == one.address]
        except (OSError, ValueError, TypeError, KeyError, InputError):
            return []

    def find(self, address: str) -> Server | None:
        """The server at that address."""
        return next((one for one in self.servers if one.address == address), None)

    def add(self, server: Server) -> None:
        """Name a server; one of the same address is replaced.

        Raises
        ------
        InputError
            If the address is none, or the list cannot be written.
        """
        checked_address(server.address)
        self._write([*(one for one in self.servers if one.address != server.address), server])

    def forget(self, address: str) -> None:
        """Name it no more, and with it the consent is gone."""
        self._write([one for one in self.servers if one.address != address])

    def _write(self, servers: list[Server]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(".new")
            beside.write_text(json.dumps([asdict(one) for one in servers], indent=1), encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            raise InputError(f"the list of servers cannot be written ({error.strerror}): {self._path}") from error


def default_path() -> Path:
    """Where this user's servers are remembered."""
    import platformdirs

    return Path(platformdirs.user_config_dir("napari-mamba", appauthor=False)) / "servers.json"
