"""How far the passes of an ensemble (mirrored copies, members) agree on what is no background."""

from __future__ import annotations

import torch


class Agreement:
    """Dice of each pass's labels with those of the mean, over all that is not background, tile after tile.

    Parameters
    ----------
    classes : int
        Channels that are classes; those behind them are something else.

    Examples
    --------
    >>> agreement = Agreement(2)
    >>> one, other = torch.tensor([[[1.0, 0, 0]], [[0.0, 1, 0.6]]]).movedim(0, 1), None
    >>> agreement.add(one); agreement.add(one); agreement.compare(one); agreement.dice
    1.0
    """

    def __init__(self, classes: int):
        self.classes = classes
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: an attempt failed."""
        self.waiting: list[torch.Tensor] = []
        self.same: torch.Tensor | int = 0  # on the device: no pass waits for the one before
        self.together: torch.Tensor | int = 0

    @torch.inference_mode()
    def add(self, output: torch.Tensor) -> None:
        """Keep the labels of one pass (B, K, ...), turned back, until `compare`."""
        self.waiting.append(output[:, : self.classes].argmax(1).to(torch.int16))

    @torch.inference_mode()
    def compare(self, mean: torch.Tensor) -> None:
        """Count against the mean (B, K [+ 1], ...) of the passes since the last time."""
        labels = mean[:, : self.classes].argmax(1).to(torch.int16)
        for one in self.waiting:
            one = one.reshape(labels.shape)
            self.same = 2 * ((one == labels) & (labels != 0)).sum() + self.same
            self.together = (one != 0).sum() + (labels != 0).sum() + self.together
        self.waiting = []

    @property
    def dice(self) -> float | None:
        """Over all tiles so far; None where there was one pass, or nothing but background."""
        same, together = int(self.same), int(self.together)
        return same / together if together else None
