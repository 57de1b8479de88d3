"""All that the module does, without its widget: for scripts, for tests, and for the widget itself."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .asking import Report, look_request, request_for
from .compute import places
from .compute.bundles import BundleInfo
from .compute.following import Follower
from .compute.jobs import Options
from .compute.look import Look
from .compute.remote import Consent, RemotePlace
from .core import Core, clean_up
from .nodes.results import Wanted
from .nodes.volumes import Unusable

_ANSWER_SECONDS = 120.0
_OPTIONS = frozenset(Options.__dataclass_fields__)
_WANTED = frozenset(Wanted.__dataclass_fields__)


class Scripting:
    """The logic behind `MambaImagingLogic`.

    Parameters
    ----------
    environment : mapping, optional
        For processes in Slicer's own Python; the application's by default.
    foreign : callable, optional
        Makes the environment for another Python.
    temporary : callable
        The folder for temporary files.
    consent : Consent, optional
        Asked before data leave the computer; without one, only a server on this computer is used unless a script says
        `agreed=True`.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        foreign: Callable[[], Mapping[str, str]] | None = None,
        temporary: Callable[[], Path | None] = lambda: None,
        consent: Consent | None = None,
    ):
        self._environment = environment
        self._foreign = foreign or (lambda: places.foreign_environment(os.environ))
        self.consent = consent or Consent(lambda question: False, {})
        self.place: places.Place = places.LocalPlace(places.slicer_python(), environment)
        self.bundles: dict[str, BundleInfo] = {}
        self.core = Core(self._runner, temporary)
        self.breathe: Callable[[], None] = lambda: None
        self._agreed = False
        self.scheduler = ""
        clean_up(temporary())

    # ---- where it computes

    def use_slicer_python(self) -> None:
        """Compute in Slicer's own Python."""
        self._use(places.LocalPlace(places.slicer_python(), self._environment))

    def use_python(self, path: str) -> None:
        """Compute in another Python on this computer, which has napari-mamba; raises `ValueError` if it is none."""
        self._use(places.LocalPlace(places.checked_python(path), self._foreign()))

    def use_server(self, address: str, token: str = "", agreed: bool = False) -> None:
        """Compute on a server; `agreed`: volumes may be sent there without asking."""
        self._use(RemotePlace(address, token))
        self._agreed = agreed

    def use_cluster(self, address: str) -> None:
        """Have a Dask cluster compute what is asked of this computer; empty: this computer does it itself."""
        self.scheduler = address.strip()

    def _use(self, place: places.Place) -> None:
        self.place, self.bundles, self._agreed = place, {}, False

    def _runner(self) -> Any:
        if isinstance(self.place, RemotePlace) and not self._agreed and not self.consent.given(self.place.address):
            raise Unusable("nothing was sent: you did not agree to send volumes to this server")
        if isinstance(self.place, places.LocalPlace):
            self.place.scheduler = self.scheduler
        return self.place.runner()

    def answer(self, question: places.Question, seconds: float = _ANSWER_SECONDS) -> Any:
        """Wait for an answer, for scripts; raises `Unusable` with a sentence where there is none."""
        deadline = time.monotonic() + seconds
        with contextlib.ExitStack() as stack:
            stack.callback(question.stop)
            while time.monotonic() < deadline:
                found = question.poll()
                if found is not None:
                    if found.error:
                        raise Unusable(found.error)
                    return found.value
                self.breathe()
                time.sleep(0.02)
        raise Unusable("the place does not answer: check it")

    def find_bundles(self) -> list[BundleInfo]:
        """The bundles of the place; waits."""
        found = self.answer(self.place.ask_bundles())
        self.bundles = {bundle.name: bundle for bundle in found}
        return found

    def bundle(self, name: str) -> BundleInfo:
        """A bundle by its name; asks the place if it was not asked yet."""
        if name not in self.bundles:
            self.find_bundles()
        if name not in self.bundles:
            raise Unusable(f"there is no bundle {name}: choose one of {', '.join(self.bundles)}")
        return self.bundles[name]

    # ---- runs

    def run(self, bundle: str, volumes: Sequence[Any], **choices: Any) -> Report:
        """Run and wait.

        Parameters
        ----------
        bundle : str
        volumes : sequence of vtkMRMLScalarVolumeNode
            One a channel; with `mode="list"` one a case; with `mode="sequence"` the volume that shows the sequence.
        **choices
            `mode`, `region`, `surfaces`, and the fields of `Options` (`device`, `tile`, ...) and of `Wanted`
            (`probabilities`, `uncertainty`, `segmentation`, ...).

        Returns
        -------
        Report
            Its `error` and `failed` are sentences; its `placed` hold the new nodes.
        """
        self.core.breathe = self.breathe
        return self.core.wait(self.request(bundle, volumes, **choices))

    def start(
        self,
        bundle: str,
        volumes: Sequence[Any],
        on_progress: Callable[[Follower], None] | None = None,
        on_end: Callable[[Report], None] | None = None,
        **choices: Any,
    ) -> None:
        """Begin a run and return; the callbacks are called from the application's event loop, or by `wait`."""
        self.core.breathe = self.breathe
        self.core.start(self.request(bundle, volumes, **choices), on_progress, on_end)

    def wait(self) -> None:
        """Wait for the run that goes on."""
        while self.core.poll():
            self.breathe()
            time.sleep(0.05)

    def request(self, bundle: str, volumes: Sequence[Any], **choices: Any) -> Any:
        """The request that `run` and `start` carry out; raises `Unusable` where something is missing."""
        options = {key: choices.pop(key) for key in list(choices) if key in _OPTIONS}
        wanted = {key: choices.pop(key) for key in list(choices) if key in _WANTED}
        mode = choices.pop("mode", "one")
        batch = list(volumes) if mode == "list" else []
        more = {"options": Options(**options), "wanted": Wanted(**wanted), **choices}
        return request_for(self.bundle(bundle), mode, list(volumes), batch, **more)

    # ---- looking inside

    def look(self, bundle: str, volumes: Sequence[Any], **choices: Any) -> Report:
        """Make maps of how a network went through a volume, and wait.

        Parameters
        ----------
        bundle : str
        volumes : sequence of vtkMRMLScalarVolumeNode
            One a channel.
        **choices
            `maps` (names, of `compute.look.MAPS`), `point` (a markups node, or RAS mm in the world), `layer`, `path`,
            `target`, `member`, `device`.

        Returns
        -------
        Report
            Its one `placed` holds the new nodes: volumes, models of scan paths, tables.
        """
        self.core.breathe = self.breathe
        return self.core.wait(self.look_request(bundle, volumes, **choices))

    def start_look(
        self,
        bundle: str,
        volumes: Sequence[Any],
        on_progress: Callable[[Follower], None] | None = None,
        on_end: Callable[[Report], None] | None = None,
        **choices: Any,
    ) -> None:
        """Begin a look and return, as `start` does."""
        self.core.breathe = self.breathe
        self.core.start(self.look_request(bundle, volumes, **choices), on_progress, on_end)

    def look_request(self, bundle: str, volumes: Sequence[Any], **choices: Any) -> Any:
        """What `look` and `start_look` carry out; raises `Unusable` where something is missing."""
        where = {name: choices.pop(name) for name in ("point", "device") if name in choices}
        if "maps" in choices:
            choices["maps"] = (choices["maps"],) if isinstance(choices["maps"], str) else tuple(choices["maps"])
        return look_request(self.bundle(bundle), list(volumes), Look(**choices), **where)

    def layers(self, bundle: str, volumes: Sequence[Any], device: str = "auto") -> list[dict[str, Any]]:
        """The scanning layers of a network on a volume, each with `name`, `grid`, `tokens`, `paths`, ...; waits."""
        report = self.look(bundle, volumes, list_only=True, device=device)
        if report.error:
            raise Unusable(report.error)
        return list(report.listed.get("layers") or [])

    def cancel(self) -> None:
        """Ask the run that goes on to stop."""
        self.core.cancel()

    def stop(self) -> None:
        """End everything at once."""
        self.core.stop()
