"""All that is checked before training starts: what is learnt, from whom, and in what patches."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from napari_mamba.bundles import Bundle
from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import quoted
from napari_mamba.training.adaptation.bundle import check_bundle
from napari_mamba.training.adaptation.data import store
from napari_mamba.training.adaptation.data.cases import find_cases, find_images
from napari_mamba.training.adaptation.data.people import Case, doubtful_people, split_people
from napari_mamba.training.adaptation.data.samples import Prepared
from napari_mamba.training.adaptation.options import AdaptOptions, AdaptProgress
from napari_mamba.training.adaptation.targets.classes import Classes, choose_classes, unnamed_class

LARGEST_ON_CPU = 64
"""Voxels a side of a patch on a CPU, where nobody says otherwise: a step takes a second there."""


@dataclass(frozen=True)
class Plan:
    """What is learnt (`classes`), from which cases, which are held out, how paint is read, and what has no labels.

    `voxels` is how many the label maps have.
    """

    classes: Classes
    training: list[Case]
    validation: list[Case]
    painted: store.Painted
    unlabelled: tuple[Case, ...] = ()
    voxels: int = 0


def make_plan(
    bundle: Bundle, place: Path, options: AdaptOptions, held_out: tuple[str, ...] = ()
) -> Generator[AdaptProgress, None, Plan]:
    """Look at every label map.

    Parameters
    ----------
    bundle : Bundle
    place : Path
        See `cases.find_cases`.
    options : AdaptOptions
    held_out : tuple of str
        People that a resumed run held out.

    Raises
    ------
    InputError
        With a sentence for whatever makes the data useless.
    """
    check_bundle(bundle)
    found = find_cases(place)
    if found.channels and found.channels != len(bundle.channels):
        raise InputError(
            f"{bundle.name} takes {len(bundle.channels)} channels, and dataset.json says {found.channels}: choose "
            "another bundle, or correct it"
        )
    painted = store.Painted(found.ignore if options.unknown is None else options.unknown, options.background)
    values: set[int] = set()
    voxels = 0
    names = dict(found.names)
    for number, case in enumerate(found.cases):
        yield AdaptProgress("checking", number, len(found.cases), message=case.name)
        here, called, size = store.read_values(case, painted)
        values |= here
        voxels += size
        names = {**called, **names} if not found.names else names
    if 0 not in values and painted.unknown is not None:
        raise InputError("no background is painted: paint some, or the network will call everything a structure")
    unnamed = {value: unnamed_class(value) for value in values if value and value not in names}
    if not found.names:  # a file may name some of its values; the bundle knows the others
        own = {entry.index: entry.name for entry in bundle.classes if options.classes != "other"}
        names |= {value: own.get(value, name) for value, name in unnamed.items()} if names else {}
    classes = choose_classes(bundle.spec, values, names, options.classes)
    if options.no_validation:
        return Plan(classes, list(found.cases), [], painted, _unlabelled(options, found.cases, []), voxels)
    learnt = bundle.metrics.get("adapted", {}).get("learnt_from", ())
    training, validation = split_people(found.cases, options.validation or held_out, learnt)
    if not options.validation and not held_out and (both := doubtful_people(training, validation)):
        raise InputError(
            f"are {quoted(both[0])}, who would be held out, and {quoted(both[1])} one person? Say who is who in a "
            "CSV's column 'person', or choose whom to hold out with --validation"
        )
    return Plan(classes, training, validation, painted, _unlabelled(options, found.cases, validation), voxels)


def _unlabelled(options: AdaptOptions, labelled: Sequence[Case], validation: Sequence[Case]) -> tuple[Case, ...]:
    """Images without labels, none of a person that is held out: to have seen them would flatter the score."""
    if options.unlabelled is None:
        return ()
    if options.scheme == "supervised" and not (options.pretrain_minutes or options.pretrain_steps):
        raise InputError(
            "nothing is learnt from images without labels: choose a scheme that does (--scheme mean-teacher or cross), "
            "pretrain on them (--pretrain-minutes), or leave --unlabelled out"
        )
    people = {case.person for case in validation}
    found = tuple(case for case in find_images(options.unlabelled, labelled) if case.person not in people)
    if not found:
        raise InputError("all images without labels are of people that are held out: add others")
    return found


def check_prepared(plan: Plan, training: list[Prepared], validation: list[Prepared]) -> None:
    """Raise `InputError` if a class is drawn only where it cannot be learnt, or nothing is drawn where it is scored."""
    learnt = {channel for case in training for channel in case.places}
    names = [entry.name for entry in plan.classes.entries]
    if missing := [names[channel] for channel in plan.classes.measured if channel not in learnt]:
        raise InputError(
            f"{missing[0]!r} is drawn only in people that are held out: draw it in others too, or choose the held-out "
            "ones with --validation"
        )
    if validation and not any(channel for case in validation for channel in case.places):
        raise InputError("nothing but background is drawn in the held-out people: choose others with --validation")


def patch_size(bundle: Bundle, cases: list[Prepared], options: AdaptOptions, device: torch.device) -> tuple:
    """Voxels of a patch (z, y, x), z being 1 for a 2D network.

    Raises
    ------
    InputError
        If the patch asked for does not suit the network.
    """
    tile, rank = bundle.tile, len(bundle.tile.size)
    divisor = tile.divisor or tile.size
    if options.patch is not None:
        size = tuple(options.patch)
        if len(size) != rank or any(n < 1 or n % d for n, d in zip(size, divisor, strict=True)):
            raise InputError(f"a patch for {bundle.name} is {rank} multiples of {', '.join(map(str, divisor))}")
        if tile.fixed and size != tuple(tile.size):
            raise InputError(f"{bundle.name} takes patches of {', '.join(map(str, tile.size))} voxels alone")
    else:
        size = tuple(tile.size)
        if not tile.fixed and tile.divisor:
            largest = [max(case.labels.shape[3 - rank + axis] for case in cases) for axis in range(rank)]
            needed = [max(2, -(-n // d)) * d for n, d in zip(largest, divisor, strict=True)]
            most = LARGEST_ON_CPU if device.type == "cpu" and rank == 3 else max(size)
            cap = [max(d, most // d * d) for d in divisor]
            size = tuple(map(min, size, needed, cap))
    return (1,) * (3 - rank) + size
