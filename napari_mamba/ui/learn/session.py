"""The state of learning in one viewer: what is chosen, what runs, what came of it. Widgets come and go. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal

from napari_mamba import bundles
from napari_mamba.errors import NapariMambaError
from napari_mamba.training.adaptation.bundle import check_bundle
from napari_mamba.ui.learn.choices import Choices, free_name
from napari_mamba.ui.learn.curve import Curve
from napari_mamba.ui.learn.images import staging
from napari_mamba.ui.learn.images.pairs import Pair, Pairs
from napari_mamba.ui.run.process.outcome import sentence

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.bundles import Bundle
    from napari_mamba.ui.bundles.library import Library

IDLE, STAGING, RUNNING, STOPPING = "idle", "staging", "running", "stopping"
Remark = tuple[str, str]
"""A kind ("error", "warning", "hint", "good") and a sentence."""


@dataclass
class LearnSession:
    """The model behind the dock "Learn".

    Parameters
    ----------
    viewer : napari viewer model
    library : Library
        Of the viewer's runs: what is learnt appears in it.
    """

    viewer: ViewerModel
    library: Library
    choices: Choices = field(default_factory=Choices)
    curve: Curve = field(default_factory=Curve)
    bundle: Bundle | None = None
    state: str = IDLE
    stage: str = ""
    fraction: float = 0.0
    seconds_left: float | None = None
    last: Remark | None = None
    """How the last training ended."""
    told: str = ""
    """The latest message of the one that runs."""
    made: Bundle | None = None
    """What the last training made."""
    shown: Pair | None = None
    """The pair that previews are of."""
    changed: ClassVar[Signal] = Signal()
    previewed: ClassVar[Signal] = Signal(str)
    """The path of a new preview's label map."""

    def __post_init__(self) -> None:
        self.pairs = Pairs(self.viewer)
        self.start_child: Callable[[Sequence[str]], Any] | None = None
        self._child: Any = None
        self._output: Path | None = None
        self.unfinished: list[staging.Unfinished] = staging.unfinished()
        self.pairs.changed.connect(self._on_change)
        self.choices.events.connect(self._on_change)
        self.library.changed.connect(self._on_library)
        self.choose_bundle(self.library.find("hippocampus-mr") or next(iter(self.starts), None))

    # ---- choosing

    @property
    def starts(self) -> list[Bundle]:
        """Bundles that can be adapted."""
        return [bundle for bundle in self.library.bundles if not unsuited(bundle)]

    def choose_bundle(self, bundle: Bundle | None) -> None:
        """Begin from this one, and call the new bundle after it unless it has a name of the user's own."""
        before = self.bundle
        self._begin_from(bundle)
        if bundle is not None and (not self.choices.name or (before and self._own_name(before))):
            self.choices.name = self._proposed(bundle)
        self.changed.emit()

    def _begin_from(self, bundle: Bundle | None) -> None:
        self.bundle = bundle
        if bundle is not None:
            self.pairs.set_channels([channel.name for channel in bundle.channels])

    def _own_name(self, bundle: Bundle) -> bool:
        return self.choices.name.startswith(bundle.name)

    def _proposed(self, bundle: Bundle) -> str:
        name = bundle.name if bundle.metrics.get("adapted") else f"{bundle.name}-mine"
        return free_name(name, [one.name for one in self.library.bundles] + self._taken())

    def _taken(self) -> list[str]:
        return [one.output.name for one in self.unfinished]

    @property
    def output(self) -> Path:
        """Where the new bundle goes: into the user's folder, so that it is in every list at once."""
        return bundles.user_folder() / self.choices.name.strip()

    # ---- what is to be said before

    def remarks(self) -> list[Remark]:
        """What stands against starting ("error"; "hint" where something is still to do), and what the score means."""
        if self.bundle is None:
            return [("hint", "No model that segments is installed: open one in the dock Models.")]
        if problem := self._name_problem() or self.choices.problem():
            return [("error", problem)]
        found: list[Remark] = []
        if len(self.bundle.weights) > 1:
            many = len(self.bundle.weights)
            found.append(("hint", f"{self.bundle.name} averages {many} networks: the first one learns."))
        if self.choices.place:
            found.append(("hint", "A fifth of the people, by their file names, is held out for the score."))
            return found
        if problem := self.pairs.problem():
            return [("hint" if not self.pairs.rows else "error", problem)]
        return [self.pairs.score_sentence(), *found]

    def _name_problem(self) -> str:
        name = self.choices.name.strip()
        if not name:
            return "Give the new model a name."
        if not all(letter.isascii() and (letter.isalnum() or letter in "-._") for letter in name) or name[0] in "-._":
            return "A model's name has letters, digits, '-', '.' and '_', the first a letter or digit."
        if self.output.exists() or any(bundle.name == name for bundle in self.library.bundles):
            return f"There is a model called '{name}' already: choose another name."
        if name in self._taken():
            return f"'{name}' is the name of a stopped training: resume it, or choose another name."
        return ""

    @property
    def ready(self) -> bool:
        """Whether a training could start."""
        stops = any(kind == "error" for kind, _ in self.remarks())
        return self.state == IDLE and not stops and bool(self.choices.place or self.pairs.rows) and bool(self.bundle)

    # ---- running

    def stage_all(self) -> list[str]:
        """Write the pairs to the disk and give the words of the command; may be called in a thread.

        Raises
        ------
        InputError, OutputError
        """
        assert self.bundle is not None
        output, choices = self.output, self.choices
        words = [str(self.bundle.path)]
        if choices.place:
            words += [str(Path(choices.place).expanduser())]
        else:
            background = choices.background if choices.unpainted == "unknown" else None
            place, names = staging.stage(self.pairs.rows, staging.work_folder(output) / "data", background)
            words += [str(place)]
        words += ["-o", str(output), *choices.words()]
        if not choices.place:
            held_out = self.pairs.held_out
            for person in held_out:
                words += ["--validation", person]
            words += [] if held_out else ["--no-validation"]
            if choices.previews and self.pairs.rows:
                shown = self.shown if self.shown in self.pairs.rows else self.pairs.rows[0]
                words += ["--preview", names[self.pairs.rows.index(shown)]]
                self.shown = shown
        staging.note(output, words, choices.to_dict())
        return words

    def begin_staging(self) -> None:
        """The pairs are being written."""
        self._output = self.output
        self._set(STAGING)
        self.last, self.made, self.told = None, None, ""
        self.stage, self.fraction, self.seconds_left = "writing the images", 0.0, None
        self.curve.clear()

    def fail(self, text: str) -> None:
        """It could not start, or ended badly; a sentence."""
        self.last = ("error", sentence(text))
        self._end()

    def run(self, words: Sequence[str], output: Path | None = None) -> None:
        """Start the command."""
        assert self.start_child is not None
        self._output = output or self._output
        try:
            self._child = self.start_child(words)
        except OSError as error:
            self.fail(f"the training could not start ({error.strerror})")
            return
        self.last = None
        self.stage, self.fraction = "starting", 0.0
        self._set(RUNNING)

    def resume(self, stopped: staging.Unfinished) -> None:
        """Go on with a training that was stopped or killed."""
        self.choices.take(stopped.choices)
        self.curve.clear()
        self.made, self.told = None, ""
        self.run([*stopped.words, "--resume"], stopped.output)

    def discard(self, stopped: staging.Unfinished) -> None:
        """Delete a stopped training's files."""
        import shutil

        shutil.rmtree(staging.work_folder(stopped.output), ignore_errors=True)
        self.unfinished = staging.unfinished()
        self.changed.emit()

    def stop(self) -> None:
        """Keep the best so far and end; a second call ends it at once, and it can be resumed."""
        if self._child is None:
            return
        if self.state == STOPPING:
            self._child.kill()
        else:
            self._set(STOPPING)
            self._child.stop()

    def take(self, event: dict[str, Any]) -> None:
        """An event of the command, in the window's thread."""
        kind = event.get("event")
        if kind == "progress":
            self._progress(event)
        elif kind == "warning":
            self.told = sentence(str(event.get("message", "")))
            self.changed.emit()
        elif kind == "error":
            self.fail(str(event.get("message", "it ended")))
        elif kind == "result":
            self._result(event)

    def _progress(self, event: dict[str, Any]) -> None:
        self.stage = str(event.get("stage", ""))
        self.fraction, self.seconds_left = float(event.get("fraction") or 0), event.get("seconds_left")
        self.curve.take(event)
        if event.get("score"):
            self.told = sentence(str(event.get("message", "")))
        if event.get("preview"):
            self.previewed.emit(str(event["preview"]))
        self.changed.emit()

    def _result(self, event: dict[str, Any]) -> None:
        path = (event.get("outputs") or {}).get("bundle")
        if path is None:
            self.last = ("warning", "It was stopped before there was anything to keep.")
            self._end()
            return
        facts = event.get("adapted") or {}
        if self._output is not None and not event.get("cancelled"):
            staging.forget(self._output)
        self.library.refresh()
        self.made = self.library.find(Path(path))
        if self.bundle is not None:
            self.choices.name = self._proposed(self.bundle)  # the next one's
        self.last = ("good", ended_sentence(Path(path).name, facts, bool(event.get("cancelled"))))
        self._end()

    def _end(self) -> None:
        self._child = None
        self.unfinished = staging.unfinished()
        self._set(IDLE)

    # ---- correct, and go on

    def correct_with(self, labels: Any) -> None:
        """Take a corrected preview as the labels of its image: every voxel of it is known then."""
        if self.shown is not None and self.shown in self.pairs.rows and labels is not None:
            self.pairs.change(self.shown, labels=labels, whole=True)

    def go_on(self) -> bool:
        """Begin from what was made last, with the same people held out; whether it can start."""
        if self.made is None:
            return False
        names = {entry.index for entry in self.made.classes}
        self._begin_from(self.made)
        self.choices.name = self._proposed(self.made)
        self.choices.classes = "same" if self._drawn() <= names else "more"
        self.changed.emit()
        return self.ready

    def _drawn(self) -> set[int]:
        import numpy as np

        values: set[int] = set()
        for pair in self.pairs.rows:
            if pair.labels is not None:
                values |= set(np.unique(np.asarray(pair.labels.data)).tolist())
        special = {self.choices.background} if self.choices.unpainted == "unknown" else set()
        return values - {0} - special

    # ---- ends

    def close(self) -> None:
        """The viewer is gone: what runs is ended, and can be resumed."""
        if self._child is not None:
            self._child.kill()
        self.pairs.close()

    def _set(self, state: str) -> None:
        self.state = state
        self.changed.emit()

    def _on_change(self, *_: Any) -> None:
        self.changed.emit()

    def _on_library(self) -> None:
        if self.bundle not in self.library.bundles:
            found = self.library.find(self.bundle.name) if self.bundle else None
            self._begin_from(found or next(iter(self.starts), None))
        self.changed.emit()


def unsuited(bundle: Bundle) -> str:
    """Why a bundle cannot be adapted; empty if it can."""
    try:
        check_bundle(bundle)
    except NapariMambaError as error:
        return str(error)
    return ""


def ended_sentence(name: str, facts: dict[str, Any], cancelled: bool) -> str:
    """What a training came to."""
    text = f"'{name}' is in the list of models"
    text += ", with the best weights so far. Resume goes on." if cancelled else "."
    score = facts.get("score")
    if not score:
        reason = "it was stopped before it was scored" if facts.get("held_out_people") else "nobody was held out"
        return f"{text} How good it is, is unknown: {reason}."
    people = score["people"]
    spread = f" ± {score['sd']:.3f}" if people > 1 else ""
    text += f" Dice {score['mean']:.3f}{spread} on {people} held-out {'people' if people > 1 else 'person'}"
    text += f"; before, {facts['before']:.3f}." if isinstance(facts.get("before"), float) else "."
    return text + (" So few people say little about others." if people < 5 else "")
