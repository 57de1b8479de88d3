"""Registration for every front end: an affine first, then a network's warp, then one fitted to the pair."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING

from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.registering.options import Registered, RegistrationOptions
from napari_mamba.engine.registering.session import Session, Stopped
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


def register(
    fixed: Volume,
    moving: Volume,
    bundle: Bundle | None = None,
    options: RegistrationOptions | None = None,
    cancel: threading.Event | None = None,
) -> Generator[Progress, None, Registered]:
    """Register a moving image onto a fixed one, step by step.

    Parameters
    ----------
    fixed, moving : Volume
        3D, in millimetres; one channel counts, the first.
    bundle : Bundle, optional
        One whose task is registration; without it there is an affine, and what `options.refine` adds.
    options : RegistrationOptions, optional
    cancel : threading.Event, optional
        Looked at after each event.

    Yields
    ------
    Progress

    Returns
    -------
    Registered

    Raises
    ------
    InputError
        If the two cannot be registered; one sentence says why.

    Examples
    --------
    >>> steps = register(fixed, moving)  # doctest: +SKIP
    >>> registered = to_end(steps)  # doctest: +SKIP
    """
    session = Session(fixed, moving, bundle, options or RegistrationOptions(), cancel or threading.Event())
    try:
        yield from session.events()
    except Stopped:
        return Registered(facts=session.found.facts)
    return session.found
