"""For which share of the time a GPU computes, in a run from a local store into another.

    python -m benchmarks.scale.device --sizes 512 1024 --write

The volume is made on the spot. Told are the run's own report of the passes' time on the device, and beside it how busy
the driver finds the device, from the first tile to the last byte of the coarsest level. What a preparation has to know
of all of the image (its range, its percentiles) takes passes over it before; these are a column of their own.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from benchmarks.scale import material, results
from napari_mamba.engine import RunOptions


class Busy:
    """How busy the driver finds the first GPU, asked again and again by a thread; empty where it cannot be asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self.ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
            device = pynvml.nvmlDeviceGetHandleByIndex(0)
            while not self.ended.is_set():
                self.seen.append((perf_counter(), pynvml.nvmlDeviceGetUtilizationRates(device).gpu))
                sleep(0.1)
        except Exception as error:  # no driver, or no nvidia-ml-py
            print(f"the driver is not asked: {error}")

    def share(self, since: float, until: float) -> float | None:
        """The mean between two moments."""
        inside = [percent for moment, percent in self.seen if since <= moment <= until]
        return sum(inside) / len(inside) / 100 if inside else None


def measured(source: Path, bundle: str, target: Path, options: RunOptions) -> dict[str, Any]:
    """One run; its report, and what the driver said meanwhile."""
    from napari_mamba import bundles, io
    from napari_mamba.engine.stored.run import run_into

    busy, began, first = Busy(), perf_counter(), 0.0
    events = run_into(io.Opener((str(source),)), bundles.load(bundle), str(target), options)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            result = end.value
            break
        if event.stage == "network" and not first:
            first = perf_counter()
    ended = perf_counter()
    busy.ended.set()
    report = result.provenance
    return {
        **report["stored"],
        "device": report["device"]["name"],
        "whole": ended - began,
        "from_first_tile": ended - first,
        "busy": busy.share(first, ended),
        "stages": report["seconds"],
    }


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--bundle", default="mr-denoise", help="a name or a folder, or small: labels by random weights")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mirror", action="store_true", help="eight mirrored copies also where one is usual")
    parser.add_argument("--folder", type=Path, help="where volumes are made and kept")
    parser.add_argument("--write", action="store_true", help="keep what was measured, and write the page of results")
    parser.add_argument("--note", default="", help="a sentence for the page")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = chosen.folder or Path(temporary)
        for size in chosen.sizes:
            since = perf_counter()
            source = material.volume(folder / f"{size}.zarr", (size,) * 3)
            print(f"{size}³: made in {perf_counter() - since:.1f} s", flush=True)
            bundle = str(material.bundle(folder, "segmentation")) if chosen.bundle == "small" else chosen.bundle
            options = RunOptions(device=chosen.device, mirror=chosen.mirror or None)
            found = measured(source, bundle, Path(temporary) / f"{size}-out.zarr", options)
            name = f"{size}³ by {Path(bundle).name}" + (", eight mirrored copies" if chosen.mirror else "")
            busy = "?" if found["busy"] is None else f"{found['busy']:.0%}"
            print(
                f"{name}: computed {found['share_computed']:.1%}, busy {busy}, bounded by "
                f"{found['bounded_by']}, {found['from_first_tile']:.1f} s from the first tile on, "
                f"{found['whole']:.1f} s in all\n  {found}",
                flush=True,
            )
            if chosen.write:
                results.keep("device", name, found, chosen.note)


if __name__ == "__main__":
    main()
