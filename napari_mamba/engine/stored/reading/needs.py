"""What cannot be done out of core."""

from __future__ import annotations

from napari_mamba.errors import InputError


class NeedsMemory(InputError):
    """The bundle or an option takes the image whole: it is run in memory."""
