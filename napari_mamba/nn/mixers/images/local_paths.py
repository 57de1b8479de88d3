"""LocalMamba's scans of a map: rows, columns and windows, each also backwards (Huang et al., arXiv:2403.09338).

Read in github.com/hunto/LocalMamba, `classification/lib/models/mamba/`. These are no permutations of the cells, as
scan orders are: windows are padded, and what a scan of columns gives is put back as the authors' code does it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mamba.errors import InputError

DIRECTION = re.compile(r"(h|v|w[1-9]\d*)(_flip)?")


class LocalPath(NamedTuple):
    """One scan over tokens of a map.

    Attributes
    ----------
    steps : int64 tensor (T,)
        The token that each step reads; L, one past the last of them, for padding with zeros. T >= L.
    back : int64 tensor (L,)
        The step whose output each token gets.
    cells : int64 tensor (T,)
        The cell of the map that each step reads, -1 for padding and for a class token.
    """

    steps: Tensor
    back: Tensor
    cells: Tensor

    def gather(self, tokens: Tensor) -> Tensor:
        """(B, L, C) in the order of the scan, padded: (B, T, C)."""
        steps = self.steps.to(tokens.device)
        padded = F.pad(tokens, (0, 0, 0, 1)) if len(steps) > len(self.back) else tokens
        return padded.index_select(1, steps)

    def put_back(self, rows: Tensor) -> Tensor:
        """(B, T, C) in the order of the scan to the tokens (B, L, C)."""
        return rows.index_select(1, self.back.to(rows.device))


def _windows(shape: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
    """Rows within windows within rows of windows; a map that windows do not divide is padded below and right."""
    height, width = shape
    cells = torch.arange(height * width).view(shape)
    cells = F.pad(cells, (0, -width % side, 0, -height % side), value=height * width)
    down, across = cells.shape[0] // side, cells.shape[1] // side
    steps = cells.view(down, side, across, side).transpose(1, 2).flatten()
    return steps, steps.argsort()[: height * width]


@lru_cache(maxsize=256)
def local_path(direction: str, shape: tuple[int, int], class_token: bool = False) -> LocalPath:
    """The scan of a map (H, W) called "h", "v", "w2" or "w7", any with "_flip" for backwards.

    Parameters
    ----------
    direction : str
        Rows, columns, or windows of that side.
    shape : (int, int)
        The map.
    class_token : bool
        Whether there is one more token, which stands in the middle of the tokens as of the steps.

    Raises
    ------
    InputError
        If no scan is called so.

    Examples
    --------
    >>> local_path("v_flip", (2, 2)).steps.tolist()
    [3, 1, 2, 0]
    """
    name = DIRECTION.fullmatch(direction)
    if name is None:
        raise InputError(
            f'a scan is called "h", "v" or "w" and a side, each with or without "_flip", not {direction!r}'
        )
    kind, flip = name.groups()
    with torch.inference_mode(False):  # made under inference, it must still serve a training
        cells = torch.arange(shape[0] * shape[1])
        if kind == "h":
            steps = back = cells
        elif kind == "v":
            # Not the inverse where the map is no square: the authors' weights were trained so.
            steps = back = cells.view(shape).T.flatten()
        else:
            steps, back = _windows(shape, int(kind[1:]))
        if flip:
            steps, back = steps.flip(0), len(steps) - 1 - back
        cells = torch.where(steps < len(back), steps, -1)
        return _with_class_token(steps, back, cells) if class_token else LocalPath(steps, back, cells)


def _with_class_token(steps: Tensor, back: Tensor, cells: Tensor) -> LocalPath:
    """The same scan with a token between those of the map, read in the middle of the tokens' number."""
    middle = len(back) // 2
    own, none = torch.tensor([middle]), torch.tensor([-1])
    steps, back = steps + (steps >= middle).long(), back + (back >= middle).long()
    steps, back, cells = (
        torch.cat([part[:middle], value, part[middle:]]) for part, value in ((steps, own), (back, own), (cells, none))
    )
    return LocalPath(steps, back, cells)
