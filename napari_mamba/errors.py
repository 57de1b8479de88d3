"""Errors that a person can act on: one sentence that says what is wrong and what to do.

None derives from `RuntimeError`: napari's generator workers swallow those (superqt does not re-emit a
`RuntimeError` raised inside a generator), and a progress bar would then hang for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class NapariMambaError(Exception):
    """Base of every error this package raises on purpose; `str(error)` is one sentence for the user."""


class InputError(NapariMambaError):
    """The input, an option or a file is not usable; the message says why and what to do."""


@dataclass(frozen=True)
class Option:
    """One thing that may be chosen: `value` for the program, `label` for people."""

    value: str | int
    label: str


class ChoiceError(InputError):
    """One place holds several images and none was chosen.

    Attributes
    ----------
    argument : {"series", "frame", "colour"}
        The parameter of `napari_mamba.read` that chooses.
    options : tuple of Option
        What may be chosen, for a list or a dialog.
    """

    def __init__(self, text: str, argument: str, options: Sequence[Option]) -> None:
        super().__init__(text)
        self.argument = argument
        self.options = tuple(options)


class BundleError(InputError):
    """A bundle or a foreign checkpoint is not one, is damaged, or would have to run code to be read."""


class UnsaidError(BundleError):
    """Weights do not say all that an import has to know, and nobody has said it.

    Attributes
    ----------
    network : str
        What the weights are of, for people.
    missing : tuple of str
        Parameters of `napari_mamba.bundles.import_checkpoint`, and arguments of the network.
    arguments : tuple of str
        Those of `missing` that are arguments of the network.
    presets : tuple of str
        Published preparations that would say it.
    """

    def __init__(
        self,
        text: str,
        network: str,
        missing: Sequence[str],
        arguments: Sequence[str] = (),
        presets: Sequence[str] = (),
    ) -> None:
        super().__init__(text)
        self.network, self.missing = network, tuple(missing)
        self.arguments, self.presets = tuple(arguments), tuple(presets)


class OutOfMemoryError(NapariMambaError):
    """The device ran out of memory even at the smallest tile."""


class RunError(NapariMambaError):
    """A run stopped for a reason that was not foreseen; the message holds it, `__cause__` the original error."""


class OutputError(NapariMambaError):
    """A result could not be written: no permission, no space, no such folder."""
