"""Peak memory of a slide's run: a bag of 100,000 patches of 1024 features, in a process of its own.

    python -m benchmarks.scale.slides [mambamil|mammil|gat_mamba] [--patches 100000]

Prints gigabytes of the whole process (interpreter, PyTorch, bag and network), and its processor time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

ARGUMENTS = {
    "mambamil": {"in_dim": 1024},
    "mammil": {"input_dim": 1024, "embed_dim": 512, "num_classes": 2},
    "gat_mamba": {},
}


def main() -> None:
    """Make a bundle and a bag, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", choices=sorted(ARGUMENTS), default="mambamil")
    parser.add_argument("--patches", type=int, default=100_000)
    chosen = parser.parse_args()
    from napari_mamba import bundles, models
    from napari_mamba.engine import RunOptions
    from napari_mamba.engine.slides.run import slide_to_end
    from napari_mamba.slides.bag import Bag

    arguments = ARGUMENTS[chosen.network]
    names = ("risk",) if chosen.network == "gat_mamba" else ("no", "yes")
    spec = bundles.BundleSpec(
        name="slide", version="1", title="Slide", task="slide", network=bundles.Network(chosen.network, arguments),
        channels=(bundles.Channel("features"),), preparation=(), tile=bundles.Tile((1024,)),
        activation="none" if chosen.network == "gat_mamba" else "softmax",
        classes=tuple(bundles.LabelClass(n, name) for n, name in enumerate(names)),
    )  # fmt: skip
    side = int(np.ceil(chosen.patches**0.5))
    cells = np.arange(chosen.patches)
    features = np.random.default_rng(0).standard_normal((chosen.patches, 1024), dtype=np.float32)
    bag = Bag(features, 256 * np.stack([cells % side, cells // side], axis=1), 256, "made up")
    with tempfile.TemporaryDirectory() as folder:
        weights = models.create(chosen.network, **arguments).state_dict()
        bundle = bundles.load(bundles.save(Path(folder) / "slide", spec, [weights], "# Slide\n\nNot for use.\n"))
        began = time.process_time()
        result = slide_to_end(bag, bundle, RunOptions(device="cpu"))
    peak = result.provenance["memory"]["process_bytes"] / 1e9
    print(
        f"{chosen.network}: {chosen.patches} patches, {peak:.2f} GB, {time.process_time() - began:.0f} s of processor"
    )


if __name__ == "__main__":
    main()
