"""Files of runs on the server's disk: names are the server's own, sizes are limited, and everything goes again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from napari_mamba.errors import OutputError
from napari_mamba.server.requests import RunRequest

PREFIX = "run-"
_OWNER_ONLY = 0o700


class Full(Exception):
    """An upload is larger than allowed, or the disk is full; the message is a sentence."""


def prepare_folder(folder: Path) -> None:
    """Make the server's folder, for its owner alone, and delete what an earlier server left in it.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, _OWNER_ONLY)
    except OSError as error:
        raise OutputError(f"{folder} cannot be used ({error.strerror}): choose another one with --folder") from error
    for left in folder.glob(PREFIX + "*"):
        shutil.rmtree(left, ignore_errors=True)


class RunFiles:
    """The files of one run: `INPUT channel of case` and `OUTPUT of case` have names made of numbers here."""

    def __init__(self, root: Path, identity: str, request: RunRequest, limit: int | None = None):
        self.limit = limit
        self.folder = root / (PREFIX + identity)
        self.request = request
        self.bytes = 0
        self.maps: list[str] = []
        self.folder.mkdir(mode=_OWNER_ONLY)

    def take(self, size: int) -> None:
        """Count bytes of an upload as they come, so that several at once keep the limit; raises `Full` beyond it."""
        if self.limit is not None and self.bytes + size > self.limit:
            raise Full(f"the files of this run are larger than the {self.limit / 1e9:.1f} GB that this server takes")
        self.bytes += size

    def give_back(self, size: int) -> None:
        """Bytes that were counted and are not there any more."""
        self.bytes -= size

    @property
    def maps_folder(self) -> Path:
        """Where a look inside puts its maps."""
        return self.folder / "maps"

    def map(self, number: int) -> Path:
        """The file of a `map` event; raises `LookupError` if there is no such map."""
        path = Path(self.maps[_index(number)])
        if path.parent != self.maps_folder:
            raise LookupError(number)
        return path

    def input(self, case: int, channel: int) -> Path:
        """Where a channel goes; raises `LookupError` if the run has no such channel."""
        return self.folder / f"{case}-{channel}{self.request.cases[_index(case)].inputs[_index(channel)]}"

    def output(self, case: int, name: str) -> Path:
        """Where an output is; raises `LookupError` if the run has no such output."""
        return self.folder / f"{case}-{name}{self.request.cases[_index(case)].outputs[name]}"  # type: ignore[index]

    def missing(self) -> list[str]:
        """Channels that have not been uploaded yet, as "case/channel"."""
        return [
            f"{case}/{channel}"
            for case, one in enumerate(self.request.cases)
            for channel in range(len(one.inputs))
            if not self.input(case, channel).is_file()
        ]

    def write_cases(self) -> Path:
        """The list that the command's `--cases` takes."""
        items = []
        for number, case in enumerate(self.request.cases):
            item: dict[str, object] = {"name": case.name or f"case {number}"}
            item["inputs"] = [self.input(number, channel).name for channel in range(len(case.inputs))]
            item |= {name: self.output(number, name).name for name in case.outputs}
            if case.region is not None:
                item["region"] = case.region
            if case.row is not None:
                item["row"] = case.row
            items.append(item)
        path = self.folder / "cases.json"
        path.write_text(json.dumps(items), encoding="utf-8")
        return path

    def delete_inputs(self) -> None:
        """Once a run is over nobody needs them."""
        for case, one in enumerate(self.request.cases):
            for channel in range(len(one.inputs)):
                self.input(case, channel).unlink(missing_ok=True)

    def delete(self) -> None:
        """Everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _index(number: int) -> int:
    if number < 0:
        raise IndexError(number)
    return number


class Upload:
    """A file on its way: written under another name, and renamed once it is whole.

    Examples
    --------
    >>> with Upload(path, limit=1 << 30) as upload:  # doctest: +SKIP
    ...     for chunk in chunks:
    ...         upload.write(chunk)
    """

    def __init__(self, path: Path, limit: int, files: RunFiles | None = None):
        self.path, self.limit, self.size = path, limit, 0
        self._files, self._counted = files, 0
        self._part = path.with_name(path.name + ".part")

    def __enter__(self) -> Upload:
        self._file = open(self._part, "wb")
        return self

    def write(self, chunk: bytes) -> None:
        """Append; raises `Full` beyond the limit, or where the disk is full."""
        self.size += len(chunk)
        if self.size > self.limit:
            raise Full(f"the file is larger than the {self.limit / 1e9:.1f} GB that this server takes")
        if self._files is not None:
            self._files.take(len(chunk))
            self._counted += len(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise Full(f"the server cannot store the file ({error.strerror})") from error

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            self._file.close()
        except OSError as full:
            self._undo()
            raise Full(f"the server cannot store the file ({full.strerror})") from full
        if error is None:
            before = self.path.stat().st_size if self.path.is_file() else 0  # the same channel, sent again
            os.replace(self._part, self.path)
            self._give_back(before)
        else:
            self._undo()

    def _undo(self) -> None:
        self._part.unlink(missing_ok=True)
        self._give_back(self._counted)

    def _give_back(self, size: int) -> None:
        if self._files is not None:
            self._files.give_back(size)
