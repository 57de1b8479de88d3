"""What a dose network takes of a plan, as its bundle describes it: organs by name and code, and the prescription."""

from __future__ import annotations

from dataclasses import dataclass

from napari_mamba.radiotherapy.structures import Structure, plain


@dataclass(frozen=True)
class Organ:
    """An organ that a network takes.

    Attributes
    ----------
    name : str
    aliases : tuple of str
        Other names it goes by; case, spaces and signs do not count.
    code : str
        SNOMED CT, or empty.
    required : bool
        Without it there is no prediction. Otherwise an absent one is an empty channel, and a note says so.
    """

    name: str
    aliases: tuple[str, ...] = ()
    code: str = ""
    required: bool = False

    @property
    def names(self) -> frozenset[str]:
        return frozenset(plain(name) for name in (self.name, *self.aliases))


@dataclass(frozen=True)
class Inputs:
    """What a dose network takes. A target with its prescription is always required.

    Attributes
    ----------
    region : str
        Of the body, for messages.
    organs : tuple of Organ
        In the order of the channels.
    unit : float
        Gy that are 1 to the network, in the prescription that it takes and in the dose that it answers.
    reach : float
        Beyond the targets along the body, mm: there is no dose further away.
    at_least : int
        Organs that must be there: with fewer it is another part of the body.
    """

    region: str
    organs: tuple[Organ, ...]
    unit: float
    reach: float = 50.0
    at_least: int = 2

    def organ_of(self, structure: Structure) -> Organ | None:
        """The organ that a structure is by its name, or else by its code; None where it is none of these.

        A code that two organs share, as both parotids do, tells nothing.
        """
        name = plain(structure.name)
        if named := next((organ for organ in self.organs if name in organ.names), None):
            return named
        coded = [organ for organ in self.organs if organ.code and organ.code == structure.code]
        return coded[0] if len(coded) == 1 and not structure.target else None

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that a plan is brought into, in their order."""
        organs = (organ.name for organ in self.organs)
        return ("planning CT", *organs, f"prescription, 1 is {self.unit:g} Gy", "where there can be dose")
