"""The token mixers by name, so that a network takes any of them by one argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from napari_mamba.errors import InputError

MIXERS: dict[str, type[nn.Module]] = {}
"""Filled by the mixers themselves, so that one of them may hold others without a circle of imports."""

Mixer = TypeVar("Mixer", bound=type[nn.Module])

# Parts of Mamba's block that a mixer does not have; networks pass them to whatever mixer they are given.
_WITHOUT = {
    "mamba2": {"dt_rank", "dt_init", "dt_scale"},
    "s4d": {"d_conv", "expand", "dt_rank", "dt_init", "dt_scale", "dt_init_floor", "conv_bias", "bias", "backend"},
}
_WITHOUT["s5"] = _WITHOUT["s4"] = _WITHOUT["h3"] = _WITHOUT["s4d"]


def register_mixer(name: str) -> Callable[[Mixer], Mixer]:
    """Decorator for a mixer's class: enters it in `MIXERS` under `name`."""

    def enter(build: Mixer) -> Mixer:
        if name in MIXERS:
            raise ValueError(f"two mixers are called {name!r}")
        MIXERS[name] = build
        return build

    return enter


def mixer(name: str, d_model: int, **arguments) -> nn.Module:
    """Return a token mixer: `forward(x (B, L, d_model), order=None) -> (B, L, d_model)`.

    Parameters
    ----------
    name : {"mamba", "mamba2", "s4d", "s5", "s4", "h3"}
        S6 (Mamba), SSD (Mamba-2), S4D, S5, S4 (DPLR) or H3.
    d_model : int
    **arguments
        The mixer's own. Those of `Mamba` that belong to a part another mixer lacks (its convolution, its expansion,
        the rank of its step sizes) are left out for that mixer.

    Raises
    ------
    InputError
        For an unknown name, or an argument that no mixer has.

    Examples
    --------
    >>> type(mixer("s5", 16, d_state=8, d_conv=4)).__name__
    'S5'
    """
    if name not in MIXERS:
        raise InputError(f"The mixer {name!r} is unknown; use one of {', '.join(MIXERS)}.")
    kept = {key: value for key, value in arguments.items() if key not in _WITHOUT.get(name, ())}
    try:
        return MIXERS[name](d_model, **kept)
    except TypeError as error:
        raise InputError(f"The mixer {name!r} does not take {', '.join(kept)}: {error}.") from error
