"""What the guide asks of nnU-Net's process (a JSON file, a file to stop), and what that tells back (JSON lines)."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VARIABLE = "NAPARI_MAMBA_NNUNET"


@dataclass(frozen=True)
class Settings:
    """Of one process. Who calls nnU-Net by its own commands has none of these, and nnU-Net's own defaults.

    Parameters
    ----------
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch : int, optional
        nnU-Net has 1000, 250 and 50.
    minutes : float, optional
        Of training a fold; its learning rate is zero then.
    batch_size : int, optional
        Instead of the plan's.
    events : str
        File that lines of JSON are appended to; empty for none.
    stop : str
        A file; training stops, with a checkpoint, once it is there. Empty for none.
    parent : int
        Number of the process that waits; training stops also when that has gone. 0 for none.
    """

    num_epochs: int | None = None
    num_iterations_per_epoch: int | None = None
    num_val_iterations_per_epoch: int | None = None
    minutes: float | None = None
    batch_size: int | None = None
    events: str = ""
    stop: str = ""
    parent: int = 0

    @classmethod
    def of_environment(cls) -> Settings:
        """Those in the file that `VARIABLE` names."""
        path = os.environ.get(VARIABLE)
        return cls(**json.loads(Path(path).read_text())) if path else cls()

    def write(self, path: Path) -> None:
        """Into a file for `of_environment`."""
        path.write_text(json.dumps(asdict(self)))

    def stop_asked(self) -> bool:
        """Whether to stop now."""
        if self.stop and os.path.exists(self.stop):
            return True
        return bool(self.parent) and not _alive(self.parent)

    def tell(self, what: str, **facts: Any) -> None:
        """Append a line."""
        if self.events:
            with open(self.events, "a", encoding="utf-8") as file:
                file.write(json.dumps({"what": what, **facts}) + "\n")


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
