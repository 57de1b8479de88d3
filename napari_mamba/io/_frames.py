"""Files that hold several volumes: which one is meant is asked, not guessed."""

from __future__ import annotations

from typing import Literal

from napari_mamba.errors import InputError

Frame = int | Literal["all"] | None


def choose(count: int, frame: Frame, path: object, axis: str = "time") -> list[int]:
    """The indexes wanted of `count` volumes along an axis: one, or with `frame="all"` each as a channel.

    Raises
    ------
    InputError
        If there are several and `frame` is None, or `frame` is not one of them.
    """
    if frame == "all":
        return list(range(count))
    if frame is None:
        if count == 1:
            return [0]
        raise InputError(
            f"{path} holds {count} volumes along its {axis} axis: choose one with frame=0 to frame={count - 1}, "
            f'or take them as channels with frame="all"'
        )
    if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < count:
        raise InputError(f'{path} has no frame {frame!r}: choose from 0 to {count - 1}, or "all"')
    return [frame]
