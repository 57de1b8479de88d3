"""The steps of one registration, in the order in which they happen."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_mamba.engine.device import choose_device
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.registering.grids import first_channel, on_grid, scaled_tensor, working_grid
from napari_mamba.engine.registering.options import Registered, RegistrationOptions
from napari_mamba.engine.result import Result
from napari_mamba.engine.run import run
from napari_mamba.errors import InputError
from napari_mamba.nn.fields import folded_share
from napari_mamba.registration.affine import check_pair, overlap, register_affine
from napari_mamba.registration.choice import USUAL_TURN, turn
from napari_mamba.registration.refinement import LEVELS, MOST_FOLDED, refine, seen_in, unlikeness
from napari_mamba.registration.transforms import (
    Transform,
    from_voxels,
    jacobian_determinant,
    resample,
    to_voxels,
    total_displacement,
)
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

POORLY_ALIGNED = 0.05
"""Mutual information in nats below which two images tell next to nothing about each other."""

USUAL_SCALES = (0.8, 1.25)
"""Of a direction, between two adults' images of one body part. Of 14 pairs of real scans of one part, 12 had 0.91 to
1.15, and the others, at 0.45 and 0.63, were no fits of adults. Of 5 pairs of different parts two fell below
`POORLY_ALIGNED`; the others had more information (0.11 to 0.13) than two crops of one spine (0.07), and scales of 1.30,
0.59 and 0.01."""


class Stopped(Exception):
    """The user asked to stop."""


def _until_restored(events: Generator[Progress, None, Result]) -> Generator[Progress, None, Result]:
    """A run's events without its last stages, which are not this registration's last."""
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        if event.stage not in ("restoring", "measuring"):
            yield event


class Session:
    """One registration; `events` is called once."""

    def __init__(
        self,
        fixed: Volume,
        moving: Volume,
        bundle: Bundle | None,
        options: RegistrationOptions,
        cancel: threading.Event,
    ) -> None:
        if bundle is not None and bundle.task != "registration":
            raise InputError(f"{bundle.name} is for {bundle.task}: choose a bundle for registration, or none")
        self.bundle, self.options, self.cancel = bundle, options, cancel
        self.found = Registered()
        fixed, moving = self._finite(fixed, "fixed"), self._finite(moving, "moving")
        check_pair(fixed, moving)
        self.fixed, self.moving = first_channel(fixed), first_channel(moving)
        self.whole = moving
        self._images: tuple[torch.Tensor, torch.Tensor] | None = None

    def events(self) -> Generator[Progress, None, None]:
        start = perf_counter()
        yield from self._say("aligning", 0, 1)
        self.found.transform = self._affine()
        yield from self._say("aligning", 1, 1)
        self._time("affine", start)
        if self.bundle is not None:
            start = perf_counter()
            yield from self._network(self.bundle)
            self._time("network", start)
        elif self.options.keep_warp:
            self._warn("No network warped this pair, so that there was no warp to keep: name one for such images.")
        warped = self.found.transform.displacement is not None
        if self.options.refine or (self.options.refine is None and not warped):
            start = perf_counter()
            yield from self._refine()
            self._time("refinement", start)
        yield from self._say("restoring", 0, 1)
        self._finish()
        yield from self._say("restoring", 1, 1)

    def _finite(self, volume: Volume, role: str) -> Volume:
        """A volume whose values are all numbers; says how many were not."""
        values = np.asarray(volume.data)
        if values.dtype.kind != "f" or (finite := np.isfinite(values)).all():
            return volume
        if not finite.any():
            raise InputError(f"the {role} image holds no number at all: there is nothing to align")
        self._warn(f"Of the {role} image {(~finite).sum()} values are no numbers (NaN or infinite), and count as dark.")
        return volume.with_data(np.where(finite, values, values[finite].min()))

    # ---- the steps

    def _affine(self) -> Transform:
        choice, apart = self.options.affine, overlap(self.fixed, self.moving) == 0
        if choice == "none":
            if apart:
                raise InputError(
                    "by their headers the two images lie apart and share no place: choose another affine than none"
                )
            return Transform()
        rigid = choice == "rigid"
        found = register_affine(self.fixed, self.moving, start="auto" if rigid else choice, rigid_only=rigid)
        if apart:
            self._warn(
                "By their headers the two images lie apart and share no place. They were brought together by what they "
                "show: look whether both are of the same part of the same, or a like, body."
            )
        self.found.facts["affine"] = {"information_before": found.before, "information_after": found.after}
        if found.after < POORLY_ALIGNED:
            self._warn(
                "The two images tell next to nothing about each other after the affine: look whether both show the "
                "same part of the body before anything is read from the result."
            )
        turned = turn(found.transform.affine)
        scales = np.linalg.svd(found.transform.affine[:3, :3], compute_uv=False)
        self.found.facts["affine"]["degrees"] = turned
        if turned > USUAL_TURN:
            self._warn(
                f"The affine turns the moving image by {turned:.0f} degrees, more than heads and bodies usually lie "
                "apart in scanners: look whether both images are upright before anything is read from the result."
            )
        self.found.facts["affine"]["scales"] = [float(scale) for scale in scales]
        if scales.min() < USUAL_SCALES[0] or scales.max() > USUAL_SCALES[1]:
            odd = scales.max() if scales.max() > USUAL_SCALES[1] else scales.min()
            self._warn(
                f"The affine makes the moving image fit by scaling it to {100 / odd:.0f}% along one direction: look "
                "whether both show the same part of the body, and whether their voxel sizes are right."
            )
        return found.transform

    def _network(self, bundle: Bundle) -> Generator[Progress, None, None]:
        """The network's warp over the pair as the affine brought it together."""
        aligned = self._aligned()
        data = np.concatenate([aligned.data, np.asarray(self.fixed.data, np.float32)])
        pair = self.fixed.with_data(data, tuple(channel.name for channel in bundle.channels))
        chosen = RunOptions(device=self.options.device, precision=self.options.precision)
        result = yield from _until_restored(run(pair, bundle, chosen, self.cancel))
        if result.cancelled:
            raise Stopped
        for warning in result.warnings:
            self._warn(warning)
        world = np.moveaxis(np.asarray(result.extra["displacement"].data), 0, -1)
        warped = Transform(self.found.transform.affine, np.ascontiguousarray(world), self.fixed.affine)
        facts = self._judged(warped)
        fits = facts["kept"]
        self.found.facts["network"] = facts
        facts |= {"bundle": bundle.name, "provenance": result.provenance}
        kept = facts["kept"] = facts["kept"] or self.options.keep_warp
        if kept:
            self.found.transform = warped
        if not fits:
            done = "kept, as was asked" if kept else "left away"
            self._warn(
                f"The warp of {bundle.name} was {done}: with it the two images fit less well, or more than "
                f"{MOST_FOLDED}% of the voxels fold. Look whether both images are of the kind that it is for."
            )

    def _aligned(self) -> Volume:
        """The moving image on the fixed one's grid, by the affine; dark where it shows nothing, also in a CT."""
        darkest = min(float(np.asarray(self.moving.data).min()), 0.0)
        lifted = self.moving.with_data(np.asarray(self.moving.data, np.float32) - np.float32(darkest))
        aligned = resample(lifted, self.fixed, self.found.transform)
        return aligned.with_data(aligned.data + np.float32(darkest))

    def _judged(self, warped: Transform) -> dict[str, Any]:
        """How unlike the images are without a network's warp and with it, how much folds, and whether it is kept."""
        moving, fixed = self._on_working_grid()
        grid = self._working
        steps = torch.from_numpy(to_voxels(on_grid(warped, grid))).float()[None].to(fixed.device)
        seen = seen_in(moving, fixed)
        before, after = (unlikeness(moving, fixed, one, seen) for one in (torch.zeros_like(steps), steps))
        folded = folded_share(steps)
        kept = after < before and folded <= MOST_FOLDED
        return {"unlikeness_before": before, "unlikeness_after": after, "folded_percent": folded, "kept": kept}

    @cached_property
    def _working(self) -> Volume:
        return working_grid(self.fixed)

    def _on_working_grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The moving image as the affine brought it, and the fixed one, (1, 1, Z, Y, X), on the working grid."""
        if self._images is None:
            device = choose_device(self.options.device, "float32").torch_device
            affine = Transform(self.found.transform.affine)
            moving = scaled_tensor(resample(self.moving, self._working, affine)).to(device)
            self._images = moving, scaled_tensor(resample(self.fixed, self._working, Transform())).to(device)
        return self._images

    def _refine(self) -> Generator[Progress, None, None]:
        moving, fixed = self._on_working_grid()
        working, start = self._working, None
        if self.found.transform.displacement is not None:
            start = torch.from_numpy(to_voxels(on_grid(self.found.transform, working))).float()[None].to(fixed.device)
        total = sum(level.steps for level in LEVELS)
        steps = refine(moving, fixed, start)
        best = next(steps)
        for done, better in enumerate(steps, start=1):
            best = better
            yield from self._say("refining", min(done, total), total)
        facts = {"unlikeness_before": best.before, "unlikeness_after": best.after, "folded_percent": best.folded}
        self.found.facts["refinement"] = {**facts, "kept": best.after < best.before}
        if best.after < best.before:
            field_ = best.displacement[0].cpu().numpy()
            self.found.transform = on_grid(from_voxels(field_, working.affine, self.found.transform.affine), self.fixed)

    def _finish(self) -> None:
        found, fixed = self.found, self.fixed
        found.moved = replace(resample(self.whole, fixed, found.transform), name=self.whole.name, header=fixed.header)
        way = total_displacement(found.transform, fixed.affine, fixed.shape)
        names = ("x in mm", "y in mm", "z in mm")
        found.displacement = fixed.with_data(np.moveaxis(way, -1, 0), names)
        change = jacobian_determinant(Transform(displacement=way, grid=fixed.affine))
        found.jacobian = fixed.with_data(change[np.newaxis], ("volume change",))
        found.facts["folded_percent"] = 100 * float((change <= 0).mean())
        found.facts["longest_mm"] = float(np.linalg.norm(way, axis=-1).max())
        if found.facts["folded_percent"] > 0.5:
            self._warn(
                f"{found.facts['folded_percent']:.1f}% of the voxels fold onto each other: the two images may not show "
                "the same part of the body, or one lacks what the other shows."
            )

    # ---- telling

    def _say(self, stage: str, done: int, total: int) -> Generator[Progress, None, None]:
        if self.cancel.is_set():
            raise Stopped
        yield Progress(stage, done, total, None, "")
        if self.cancel.is_set():
            raise Stopped

    def _warn(self, sentence: str) -> None:
        if sentence not in self.found.warnings:
            self.found.warnings.append(sentence)

    def _time(self, step: str, since: float) -> None:
        self.found.facts.setdefault("seconds", {})[step] = round(perf_counter() - since, 2)
