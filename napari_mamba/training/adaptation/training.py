"""The steps of an adaptation: patches, loss, scores on held-out people, and when to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_mamba.bundles import Bundle
from napari_mamba.errors import RunError
from napari_mamba.training.adaptation import pretraining
from napari_mamba.training.adaptation.data.people import hashed
from napari_mamba.training.adaptation.data.samples import Patches, Prepared
from napari_mamba.training.adaptation.options import AdaptOptions, AdaptProgress, Score
from napari_mamba.training.adaptation.plan import Plan, patch_size
from napari_mamba.training.adaptation.schemes.networks import make_scheme
from napari_mamba.training.adaptation.state import State
from napari_mamba.training.adaptation.targets import heads
from napari_mamba.training.adaptation.targets.likeness import most_alike
from napari_mamba.training.adaptation.validation import score
from napari_mamba.training.loop import pick_device

_WARM_UP, _LARGEST_GRADIENT = 10, 12.0
_SHARE = 0.25  # of the time that scores may take
_SAVE_SECONDS = 60.0
MOST_TILES = 12
"""Of an image that a round is scored on, where a CPU computes: a whole head's take as long as a hundred steps."""


class Stopped(Exception):
    """The user asked to stop during a validation."""


class Training:
    """One adaptation in progress; `events` runs it to its end.

    A step's samples depend on seed and step alone, so that a resumed training takes the steps that an uninterrupted one
    takes. Its learning rate falls with the steps that are done where `steps` is given, else with the time.
    """

    def __init__(
        self,
        bundle: Bundle,
        plan: Plan,
        cases: Sequence[Sequence[Prepared]],
        folder: Path,
        options: AdaptOptions,
        cancel: threading.Event,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        """`cases` are those to learn from, those held out, and perhaps those without labels."""
        self.plan, self.options, self.cancel, self.bundle = plan, options, cancel, bundle
        self.training, self.validation, self.unlabelled = (list(part) for part in (*cases, ())[:3])
        self.device = pick_device(options.device)
        self.size = patch_size(bundle, [*self.training, *self.validation], options, self.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # patches have one size
        torch.manual_seed(options.seed)
        self.description, network = heads.with_classes(bundle, plan.classes.kept, options.seed, self._beginnings(saved))
        scheme = make_scheme(
            options, self.description, network, plan.classes.drawn, self.device,
            something_unknown=bool(self.unlabelled) or not all(case.whole for case in self.training),
        )  # fmt: skip
        self.state = State(scheme, options.optimiser, self._about(), folder)
        if saved:
            self.state.load(saved)
        else:
            (folder / "history.jsonl").unlink(missing_ok=True)
        patches = options.batch_size or (1 if self.device.type == "cpu" else 2)
        self.patches = Patches(
            self.training, self.size, len(plan.classes.entries), self._flips(), patches, options.seed,
            self.unlabelled, self.state.scheme.views,
        )  # fmt: skip
        self.whole: Score | None = None
        self.every = options.validate_every or 20
        self.began = time.monotonic() - self.state.seconds
        self.saved_at = time.monotonic()

    def _beginnings(self, saved: Mapping[str, Any] | None) -> tuple[int, ...]:
        """What new classes begin as. Beside all of the bundle's own, as background: they take nothing from these."""
        kept = self.plan.classes.kept
        beside = len([channel for channel in kept if channel is not None]) == len(self.bundle.classes)
        if saved or beside or None not in kept or self.options.random_weights:
            return ()
        network, *_ = self.bundle.networks()
        return most_alike(network, self.training, self.size, kept, self.device, self.options.seed)

    def _about(self) -> dict[str, Any]:
        plan = self.plan
        people = {
            "training": sorted({case.person for case in plan.training}),
            "validation": sorted({case.person for case in plan.validation}),
        }
        return {
            "bundle": self.bundle.sha256,
            "list of classes": [[entry.index, entry.name] for entry in plan.classes.entries],
            "patch": list(self.size),
            "seed": self.options.seed,
            "optimiser": self.options.optimiser,
            "scheme": self.options.scheme,
            "frozen part": self.options.freeze,
            "choice of held-out people": people["validation"],
            "people": people,
        }

    def _flips(self) -> tuple[int, ...]:
        """Axes that look alike mirrored, without the one across which left and right change places."""
        shift = 3 - len(self.bundle.tile.size)
        axes = tuple(axis + shift for axis in self.bundle.tile.mirror_axes)
        sided = self.plan.classes.sided(self.bundle.tile.left_right_pairs)
        return tuple(axis for axis in axes if axis != 2 or not sided)

    # ---- the steps

    def events(self) -> Generator[AdaptProgress, None, None]:
        """Train until steps or time are over, or somebody asks to stop; a checkpoint is there then."""
        try:
            if (self.options.pretrain_minutes or self.options.pretrain_steps) and not self.state.pretrained:
                yield from self._pretrain()
            if self.state.validated < 0:
                yield from self._validate()
            while not self._over():
                loss = self._step()
                yield AdaptProgress("training", *self._where(), message="", loss=loss)
                if self.state.step % self.every == 0:
                    yield from self._validate()
                elif time.monotonic() - self.saved_at > _SAVE_SECONDS:
                    self._save()
            if self.state.validated < self.state.step and not self.cancel.is_set():
                yield from self._validate()
            if not self.cancel.is_set():
                yield from self._score_whole()
        except Stopped:
            pass
        new = self.plan.classes.changed and self.state.best_step == 0
        if self.state.step and (not self.validation or (new and self.cancel.is_set())):
            self.state.keep(None)  # new classes that were stopped before a score are worth more than none
        self._save()

    def _pretrain(self) -> Generator[AdaptProgress, None, None]:
        """Paint what is hidden, with the first network; killed meanwhile, it begins anew."""
        options, scheme = self.options, self.state.scheme
        painting = pretraining.pretrain(
            scheme.students[0], self.description, self.patches, self.device, options, self.cancel
        )
        yield from painting
        scheme.average.load_state_dict(scheme.students[0].state_dict())
        self.state.pretrained = not self.cancel.is_set()
        self.began = time.monotonic() - self.state.seconds

    def _step(self) -> float:
        state, scheme = self.state, self.state.scheme
        batch = self.patches.batch(state.step, self.device)
        for parameter in scheme.students.parameters():
            parameter.grad = None
        scheme.train()
        loss = scheme.loss(batch, self._share(), torch.Generator().manual_seed(self.options.seed + 1009 * state.step))
        value = float(loss.detach())
        if not np.isfinite(value):
            raise RunError(f"the loss is no number at step {state.step}: --learning-rate below "
                           f"{self.options.learning_rate:g} may help")  # fmt: skip
        if loss.requires_grad:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(scheme.students.parameters(), _LARGEST_GRADIENT)
            state.optimiser.step(self._rate())
            scheme.follow(state.step)
        state.step += 1
        state.seconds = time.monotonic() - self.began
        if state.step % 10 == 0:
            state.log({"step": state.step, "loss": value, "seconds": round(state.seconds, 1)})
        return value

    def _rate(self) -> float:
        left = max(0.0, 1 - self._share()) ** 0.9
        return self.options.learning_rate * max(left, 0.01) * min(1.0, (self.state.step + 1) / _WARM_UP)

    def _share(self) -> float:
        """How much of the training is done, 0 to 1."""
        if self.options.steps is not None:
            return self.state.step / self.options.steps
        return self.state.seconds / (60 * self.options.minutes)

    def _over(self) -> bool:
        steps = self.options.steps
        late = self.state.seconds >= 60 * self.options.minutes
        return self.cancel.is_set() or late or (steps is not None and self.state.step >= steps)

    def _where(self) -> tuple[int, int, float | None]:
        share = max(1e-9, self._share())
        total = self.options.steps or max(self.state.step, round(self.state.step / share))
        return self.state.step, total, self.state.seconds * max(0.0, 1 - share) / share

    # ---- scores

    def _validate(self) -> Generator[AdaptProgress, None, None]:
        if not self.validation:
            self.state.keep(None)
            if self.state.step:
                yield AdaptProgress("validating", 1, 1)
            return
        began = time.monotonic()
        yield AdaptProgress("validating", 0, 1)
        found = self._score(MOST_TILES if self.device.type == "cpu" else None)
        if self.state.validated < 0 and not self.plan.classes.changed:
            self.state.before = found.mean
        best = self.state.keep(found)
        self.state.seconds = time.monotonic() - self.began
        self.state.log({"step": self.state.step, "score": found.mean, "sd": found.sd, "people": found.people,
                        "seconds": round(self.state.seconds, 1)})  # fmt: skip
        self._save()
        if self.options.validate_every is None and self.state.step:
            took, step = time.monotonic() - began, (self.state.seconds - (time.monotonic() - began)) / self.state.step
            self.every = max(20, round(took * (1 - _SHARE) / _SHARE / max(step, 1e-3) / 10) * 10)
        people = f"{found.people} held-out {'people' if found.people > 1 else 'person'}"
        message = f"Dice {found.mean:.3f} on {people} after {self.state.step} steps"
        yield AdaptProgress("validating", 1, 1, message=message, score=found, best=best)

    def _score(self, most: int | None) -> Score:
        return score(
            self.state.network, self.validation, self.size, self.plan.classes.drawn, self.device, self._stop_if_asked,
            most,
        )  # fmt: skip

    def _score_whole(self) -> Generator[AdaptProgress, None, None]:
        """Where rounds were scored on a part of large images: the kept weights on all of them, at the end."""
        if self.state.score is None or not self.state.score.part:
            return
        yield AdaptProgress("validating", 0, 1, message="the kept weights on the whole images")
        last = {key: value.clone() for key, value in self.state.network.state_dict().items()}
        self.state.network.load_state_dict(self.state.best)
        try:
            found = self.whole = self._score(None)
        finally:
            self.state.network.load_state_dict(last)
        message = f"Dice {found.mean:.3f} on the whole images of the held-out"
        yield AdaptProgress("validating", 1, 1, message=message, score=found, best=True)

    def _stop_if_asked(self) -> None:
        if self.cancel.is_set():
            raise Stopped

    def _save(self) -> None:
        self.state.save()
        self.saved_at = time.monotonic()

    # ---- what is said of it

    @property
    def score(self) -> Score | None:
        """Of the kept weights."""
        return self.whole or self.state.score

    def facts(self) -> dict[str, Any]:
        """What the card says; numbers by label value where they are a class's."""
        found, entries = self.score, self.plan.classes.entries
        facts: dict[str, Any] = {
            "from": self.bundle.name, "from_version": self.bundle.version, "from_sha256": self.bundle.sha256,
            "steps": self.state.step, "best_step": self.state.best_step, "minutes": round(self.state.seconds / 60, 2),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU",
            "training_images": len(self.training), "training_people": len(self.state.about["people"]["training"]),
            "partial": not all(case.whole for case in self.training),
            "held_out_people": len({case.person for case in self.plan.validation}),
            "learnt_from": self._learnt_from(), "scheme": self.options.scheme,
            "unlabelled_images": len(self.unlabelled),
        }  # fmt: skip
        cases = [*self.training, *self.validation]
        if sides := [side for case in cases for side in case.view]:
            facts["view_mm"], facts["located"] = [min(sides), max(sides)], any(case.located for case in cases)
        if self.state.before is not None:
            facts["before"] = self.state.before
        if found is not None:
            classes = {str(entries[k].index): v if np.isfinite(v) else None for k, v in found.classes.items()}
            facts["score"] = {"mean": found.mean, "sd": found.sd, "people": found.people, "images": found.images,
                              "classes": classes, "part": found.part}  # fmt: skip
        return facts

    def _learnt_from(self) -> list[str]:
        before = self.bundle.metrics.get("adapted", {}).get("learnt_from", [])
        return sorted({*map(str, before), *map(hashed, self.state.about["people"]["training"])})

    def release(self) -> None:
        """Let go of the prepared images, which Windows does not delete while they are mapped."""
        self.training, self.validation, self.unlabelled, self.patches = [], [], [], None  # type: ignore[assignment]
