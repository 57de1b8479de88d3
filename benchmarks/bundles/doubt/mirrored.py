"""How far a bundle's answers to mirrored copies, and its members, agree: on right images and on others.

    python -m benchmarks.bundles.doubt.mirrored hippocampus-mr --data DIR [--most 60]

Prints the Dice of the passes with their mean that `warn_mirrored` looks at, chosen so that 2% of the right images that
choose limits lie below it, and the shares below it of the test's images: right ones, and others by kind.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.bundles.doubt.bundles import KINDS
from benchmarks.bundles.doubt.kinds.images import CHOOSE, FIT, Example
from napari_mamba import bundles
from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.engine.familiarity.extract import drained
from napari_mamba.engine.session import Session
from napari_mamba.engine.tiling.agreement import Agreement
from napari_mamba.errors import NapariMambaError
from napari_mamba.volume import Volume

FALSE = 0.02


def agreement(volume: Volume, bundle: Bundle) -> float | None:
    """Dice of the passes with their mean; None where nothing was found, or the run refuses the image."""
    try:
        session = Session(volume, bundle, RunOptions(), None)
        prepared = drained(session.prepare())
        ensemble = drained(session.warm_up())
        ensemble.agreement = Agreement(len(bundle.classes))
        drained(session.infer(prepared, ensemble))
    except NapariMambaError:
        return None
    return ensemble.agreement.dice


def chosen(examples: list[Example], most: int) -> list[Example]:
    """So many right images that choose, right ones that test, and others that test, mixed; none that fits."""
    mixed = np.random.default_rng(0).permutation(len(examples))
    taken: dict[tuple[str, bool], int] = {}
    found = []
    for example in (examples[i] for i in mixed):
        key = (example.part, example.right)
        if example.part == FIT or (example.part == CHOOSE and not example.right) or not example.network:
            continue
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= most:
            found.append(example)
    return found


def main() -> None:
    """The limit, and a line each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", choices=tuple(KINDS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--most", type=int, default=60)
    asked = parser.parse_args()
    bundle = bundles.kept(bundles.load(asked.bundle))
    seen: dict[tuple[str, str], list[float]] = {}
    for example in chosen(list(KINDS[asked.bundle].examples(asked.data)), asked.most):
        value = agreement(example.make(), bundle)
        if value is not None:
            seen.setdefault((example.part, "right" if example.right else example.kind), []).append(value)
    limit = float(np.quantile(seen[CHOOSE, "right"], FALSE))
    print(f"limit {limit:.3f}, from {len(seen[CHOOSE, 'right'])} images")
    for (part, kind), values in sorted(seen.items()):
        below = float(np.mean(np.array(values) < limit))
        print(f"| {part} | {kind} | {len(values)} | {np.median(values):.3f} | {100 * below:.0f}% |")


if __name__ == "__main__":
    main()
