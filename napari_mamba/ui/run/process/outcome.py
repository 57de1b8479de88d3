"""A run whose every end is an `Outcome`: a result, or a sentence about what went wrong. No Qt, no torch before it runs.

superqt's generator workers lose a `RuntimeError` (no signal comes, and the interface would wait for ever), so nothing
is raised out of here.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.run.process.memory import PeakMemory

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress, Result, RunOptions
    from napari_mamba.server.client.known import Server
    from napari_mamba.volume import Volume

_log = logging.getLogger(__name__)
_LOST = ("CUDA error", "HIP error", "CUDA driver", "NVML", "no CUDA-capable device", "MPS backend failed", "XPU error")
GPU_GONE = (
    "The GPU stopped answering: run again, which starts it anew, or choose the device CPU; where it goes on, start the "
    "computer anew."
)

IN_THE_WINDOW = (
    (" (replace_nonfinite; --replace-nonfinite)", " (NaN becomes, under More options)"),
    (" (--resample-channels)", ""),
    (", one file a channel, or choose of its own (--channel)", ", one layer a channel"),
    ("begin anew with --precision float32 --overwrite", "choose float32 under More options, and another name"),
    ("begin anew with a smaller --tile and --overwrite", "choose a smaller tile under More options, and another name"),
    ("go on with --resume, or begin anew with --overwrite", "run into it again to go on, or choose another name"),
    ("add --overwrite to replace it, or choose another name", "choose another name, or remove it first"),
    ("begin anew with --overwrite", "choose another name"),
    ("go on with --resume", "run into it again to go on"),
    ("go on with it by --resume", "run into it again to go on"),
    ("give a coarser --level or a --region", "choose a coarser level, or a region"),
    ("give a coarser --level", "choose a coarser level"),
    ("or give a --region", "or choose a region"),
)
"""What the engine says to whoever types commands, and what this window has in its place: the first that fits counts."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Parameters
    ----------
    result : Result, optional
        Perhaps a cancelled one.
    error : str
        One sentence, where there is no result.
    lost : bool
        Whether the device is lost to the process that ran it: no later run in it can succeed.
    measured : dict
        What the next estimate stands on: "passes" of the network, bytes of "memory" that the run took.
    """

    result: Result | None = None
    error: str = ""
    lost: bool = False
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def cancelled(self) -> bool:
        """Stopped before its end."""
        return not self.error and (self.result is None or self.result.cancelled)


def outcome_of(
    volume: Volume, bundle: Bundle, options: RunOptions, cancel: threading.Event
) -> Generator[Progress, None, Outcome]:
    """The engine's run with every exception turned into a sentence."""
    warnings.showwarning = _to_log  # type: ignore[assignment]  # napari would show each as a notification
    passes = 0
    try:
        from napari_mamba import engine

        with PeakMemory() as memory:
            events = engine.run(volume, bundle, options, cancel)
            while True:
                try:
                    progress = next(events)
                except StopIteration as end:
                    result = end.value
                    break
                if progress.stage == "network":
                    passes = progress.total
                yield progress
        return Outcome(result, measured={"passes": passes, "memory": memory.bytes})
    except GeneratorExit:
        raise
    except BaseException as error:  # a bug too: the window must not wait for ever, whatever it is
        told = sentence_of(error)
        return Outcome(error=told, lost=told == GPU_GONE)


def sentence_of(error: BaseException) -> str:
    """What a window says about an exception, which is logged where it is a fault of ours."""
    if isinstance(error, NapariMambaError):
        return sentence(str(error))
    if isinstance(error, MemoryError):
        return "Memory ran out: close other programs, or crop the image."
    _log.error("a run failed", exc_info=error)
    if "out of memory" in str(error).lower():
        return "Memory ran out: choose the device CPU, close other programs, or crop the image."
    if any(word in str(error) for word in _LOST):
        return GPU_GONE
    reason = " ".join(str(error).split())[:200]
    return f"The run stopped ({type(error).__name__}: {reason}): please report this."


def remote_outcome(
    volume: Volume, bundle: Bundle, options: RunOptions, cancel: threading.Event, server: Server
) -> Generator[Progress, None, Outcome]:
    """The same on a computer elsewhere; what it takes there says nothing of runs here."""
    from napari_mamba.server.client import remote

    if not server.allowed:
        return Outcome(error=f"Nothing was sent to {server.address}: agree to it in the list of devices first.")
    try:
        events = remote.run(volume, bundle, options, cancel, server.address, server.token())
        return Outcome((yield from events))
    except NapariMambaError as error:
        return Outcome(error=sentence(str(error)))


def sentence(text: str) -> str:
    """With a capital and a full stop, as a notice in a window is written, and without options of the command.

    Paths keep their first letter.

    Examples
    --------
    >>> sentence("memory ran out: crop the image")
    'Memory ran out: crop the image.'
    """
    text = text.strip()
    for option, place in IN_THE_WINDOW if "--" in text else ():
        text = text.replace(option, place)
    first = text.split(" ", 1)[0]
    if first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def _to_log(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    _log.info("%s:%s: %s: %s", filename, lineno, category.__name__, message)
