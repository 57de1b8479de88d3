"""What the widget says about a run, in plain text. No Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mamba.ui.run.queue.jobs import Job, State

if TYPE_CHECKING:
    from napari_mamba.ui.run.queue.estimates import Estimate

STAGES = {
    "sending": "Sending the image",
    "waiting": "Waiting for its turn",
    "loading": "Reading the image there",
    "checking": "Checking the image",
    "preparing": "Preparing the image",
    "warming up": "Loading the model",
    "network": "Running",
    "restoring": "Putting the answer back on the image's grid",
    "measuring": "Measuring",
    "writing": "Writing the answer there",
    "fetching": "Fetching the answer",
}


def stage_text(job: Job, now: float) -> str:
    """What a running job is doing, how far it is and how long the whole of it will take, in a line.

    Parameters
    ----------
    job : Job
    now : float
        Seconds of the clock that `job.clock` was started with.
    """
    if job.state is State.STOPPING:
        return "Stopping. Nothing will be added."
    parts = [STAGES.get(job.stage, "Starting")]
    if job.note:
        parts.append(job.note)
    clock = job.clock
    if job.stage == "network" and clock.total > 1:
        parts.append(f"step {min(clock.done + 1, clock.total)} of {clock.total}")
    left = clock.seconds_left(now)
    if left is not None:
        parts.append(f"about {duration(max(left, 1.0))} left")
    return ", ".join(parts)


def ended_text(job: Job) -> tuple[str, str]:
    """How a job ended, and the kind of that sentence."""
    if job.state is State.FAILED:
        return job.sentence, "error"
    if job.state is State.CANCELLED:
        return "Cancelled. Nothing was added.", "hint"
    done = "Done: the same run was made before." if job.from_cache else f"Done in {duration(job.seconds)}{_place(job)}."
    new = [warning for warning in job.warnings if warning not in job.told]
    return ("\n".join([done, *new]), "warning") if new else (done, "good")


def _place(job: Job) -> str:
    name, _, rest = job.ran_on.partition(", ")
    return "" if not name else f" on {name} ({rest})" if rest else f" on {name}"


def estimate_text(estimate: Estimate | None, free: int | None = None) -> str:
    """What a run is expected to take, in a line; empty where nothing like it was measured.

    Parameters
    ----------
    estimate : Estimate or None
    free : int, optional
        Bytes that the device has left.

    Examples
    --------
    >>> from napari_mamba.ui.run.queue.estimates import Estimate
    >>> estimate_text(Estimate(75.0, 3 * 2**30, 1.0, 2))
    'Takes about 1 min 15 s and 3 GB of memory.'
    >>> estimate_text(Estimate(75.0, 3 * 2**30, 1.0, 2), free=2**30)
    'Takes about 1 min 15 s and 3 GB of memory, more than the 1 GB that are free.'
    """
    if estimate is None:
        return ""
    text = f"Takes about {duration(estimate.seconds)}"
    if estimate.memory:
        text += f" and {memory(estimate.memory)} of memory"
        if free is not None and estimate.memory > free:
            text += f", more than the {memory(free)} that are free"
    return text + "."


def memory(count: int) -> str:
    """Bytes as one says them.

    Examples
    --------
    >>> memory(250 * 2**20), memory(5 * 2**29)
    ('250 MB', '2.5 GB')
    """
    return f"{count / 2**20:.0f} MB" if count < 2**30 else f"{count / 2**30:.3g} GB"


def duration(seconds: float) -> str:
    """A duration as one says it.

    Examples
    --------
    >>> duration(0.42), duration(12.3), duration(200), duration(7500)
    ('0.4 s', '12 s', '3 min 20 s', '2 h 5 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
