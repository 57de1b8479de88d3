"""`run_on`: a run from napari's console, a notebook or a script, which goes on while the window stays alive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_mamba.engine.checks import takes_rgb
from napari_mamba.errors import InputError, RunError
from napari_mamba.server.client.known import Server
from napari_mamba.ui.run.choice.layer_jobs import layer_job
from napari_mamba.ui.run.choice.options import Options
from napari_mamba.ui.run.host import RunHost, host_of
from napari_mamba.ui.run.queue.jobs import Job, State

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.engine import Result


class Run:
    """A run that was started by `run_on`."""

    def __init__(self, job: Job, host: RunHost):
        self._job = job
        self._host = host

    @property
    def state(self) -> str:
        """ "waiting", "running", "stopping", "done", "failed" or "cancelled"."""
        return str(self._job.state)

    @property
    def layer(self) -> Layer | None:
        """The layer with the answer, once it is there; a classification has none."""
        return self._job.layer

    @property
    def result(self) -> Result | None:
        """The engine's result, once it is there."""
        return self._job.result

    def cancel(self) -> None:
        """Stop it."""
        self._host.session.queue.stop(self._job)

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until it is over, with the window alive; for scripts. In a console, look at `state` instead.

        Parameters
        ----------
        timeout : float, optional
            Seconds.

        Raises
        ------
        RunError
            If it failed or was cancelled.
        TimeoutError
            If it is not over by then.
        """
        from qtpy.QtCore import QEventLoop, QTimer

        end = None if timeout is None else monotonic() + timeout
        loop, timer = QEventLoop(), QTimer()
        timer.setInterval(20)

        def over() -> bool:
            adding = self._host.runner.running or self._host.adding
            return self._job.over and (self._job.state is not State.DONE or not adding)

        timer.timeout.connect(lambda: loop.quit() if over() or (end is not None and monotonic() > end) else None)
        timer.start()
        if not over():
            loop.exec()
        if not over():
            raise TimeoutError(f"{self._job.name} is not over after {timeout:g} s")
        if self._job.state is not State.DONE or self._job.result is None:
            raise RunError(self._job.sentence or f"{self._job.name} was cancelled")
        return self._job.result

    def __repr__(self) -> str:
        return f"<{self._job.name}: {self.state}>"


def run_on(viewer: ViewerModel, layer: Layer | str | Sequence[Layer | str], name: str, **options: Any) -> Run:
    """Run a bundle on a layer; returns at once, and adds the result to the viewer when it is there.

    Parameters
    ----------
    viewer : napari viewer
    layer : layer or its name, or a sequence of them
        Several are the channels of the bundle, in its order.
    name : str
        A bundle's name, or the path of one.
    **options
        Those of `napari_mamba.engine.RunOptions`, and `region`, the name of a Shapes or Labels layer.

    Returns
    -------
    Run
        Tells the state, cancels, or waits.

    Raises
    ------
    InputError
        If there is no such layer, bundle or option, or the layer cannot be used.

    Examples
    --------
    >>> run = run_on(viewer, "hippocampus_left", "hippocampus-mr", uncertainty=True)  # doctest: +SKIP
    >>> run.wait().table  # doctest: +SKIP
    """
    host = host_of(viewer)
    session = host.session
    chosen = [layer] if isinstance(layer, str) or not isinstance(layer, Sequence) else list(layer)
    layers = [_layer(session.viewer, one) for one in chosen]
    bundle = session.library.find(name)
    if bundle is None:
        from pathlib import Path

        from napari_mamba.bundles.bundle import read

        if not Path(name).expanduser().exists():
            known = ", ".join(one.name for one in session.library.bundles) or "none yet"
            raise InputError(f"there is no bundle called {name!r}; known are: {known}")
        bundle = session.library.add(read(Path(name).expanduser()))
    picture = len(layers) == 1 and takes_rgb(bundle)
    if len(layers) != len(bundle.channels) and not picture:
        names = ", ".join(channel.name for channel in bundle.channels)
        raise InputError(f"{bundle.name} takes {len(bundle.channels)} layers ({names}), not {len(layers)}")
    told = _options(options)
    job, _ = layer_job(session.viewer, layers, bundle, told, session.frame)
    job.cluster = told.cluster
    if told.elsewhere and not told.cluster:
        job.server = session.servers.find(told.device) or Server(told.device)
    session.queue.add(job)
    return Run(job, host)


def _layer(viewer: ViewerModel, layer: Layer | str) -> Layer:
    if not isinstance(layer, str):
        return layer
    if layer not in viewer.layers:
        raise InputError(f"there is no layer called {layer!r} in this viewer")
    return viewer.layers[layer]


def _options(given: dict[str, Any]) -> Options:
    options = Options()
    known = {field.name: field.default for field in fields(Options)}
    for key, value in given.items():
        if key not in known:
            raise InputError(f"there is no option {key!r}: known are {', '.join(known)}")
        if key == "strength" and not isinstance(value, str):
            value = 100 * value  # in percent in the dock, a share in `RunOptions`
        if isinstance(known[key], str):
            value = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        setattr(options, key, value)
    if given.get("uncertainty"):
        options.spread = options.evidence = True  # one word for all three, as in `RunOptions`
    return options
