"""Several layers as the channels of one image, without a copy of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class ChannelStack:
    """Arrays (Z, Y, X) that are the channels of one image (C, Z, Y, X), laid together when values are asked for."""

    def __init__(self, channels: Sequence[Any]):
        self.channels = list(channels)
        self.shape = (len(self.channels), *self.channels[0].shape)
        self.dtype = np.result_type(*(channel.dtype for channel in self.channels))
        self.ndim = 4

    @property
    def in_memory(self) -> bool:
        """Whether reading values costs no disk."""
        return all(isinstance(channel, np.ndarray) for channel in self.channels)

    def __len__(self) -> int:
        return len(self.channels)

    def __getitem__(self, index: Any) -> Any:
        """A channel, or the same box of every channel (`stack[:, z, y, x]`)."""
        if isinstance(index, tuple) and index[0] == slice(None):
            return ChannelStack([channel[index[1:]] for channel in self.channels])
        return self.channels[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.stack([np.asarray(channel) for channel in self.channels]).astype(dtype or self.dtype, copy=False)
