"""Files that hold several volumes: which one is meant is asked, not guessed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from napari_mamba.errors import ChoiceError, InputError, Option

Frame = int | Literal["all"] | None


def choose(count: int, frame: Frame, path: object, axis: str = "time", names: Sequence[str] = ()) -> list[int]:
    """The indexes wanted of `count` volumes along an axis: one, or with `frame="all"` each as a channel.

    Raises
    ------
    ChoiceError
        If there are several and `frame` is None; its options have the `names`, where they are given.
    InputError
        If `frame` is not one of them.
    """
    if frame == "all":
        return list(range(count))
    if frame is None:
        if count == 1:
            return [0]
        raise ChoiceError(
            f"{path} holds {count} volumes along its {axis} axis: choose one, 0 to {count - 1}, or all of them as "
            "channels",
            "frame",
            [
                *(Option(i, names[i] if names else f"volume {i}") for i in range(count)),
                Option("all", "all, as channels"),
            ],
        )
    if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < count:
        raise InputError(f'{path} has no frame {frame!r}: choose from 0 to {count - 1}, or "all"')
    return [frame]
