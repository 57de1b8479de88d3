"""What a click in "Look inside" takes: `python -m benchmarks.ui.look_inside [--device cuda]`.

`brain-structures-mr` on a tile of 96 x 96 x 96 voxels of the ICBM template. A click asks for the attention of the voxel
in the chosen layer, then for the receptive field of the answer there. As in the window, opening passes the middle tile
through the network once and keeps what gradients need, so that a click there costs a backward pass; the first click on
another tile costs that tile's pass, too. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions
from napari_mamba.explain import explain, subject_of

SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"
VOXELS = ((90, 120, 98), (94, 118, 100), (88, 124, 96), (92, 121, 95), (90, 60, 98), (92, 62, 96))
"""Four about the middle, two of the tile behind it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tile", type=int, default=96)
    parser.add_argument("--bundle", default="brain-structures-mr")
    parser.add_argument("--sample", default="icbm2009a_t1.nii.gz")
    asked = parser.parse_args()
    volume = io.read(SAMPLES / asked.sample)
    subject = subject_of(volume, bundles.load(asked.bundle), RunOptions(device=asked.device, tile=(asked.tile,) * 3))
    start = time.perf_counter()
    subject.prepare()
    layer = next(layer.name for layer in subject.layers if layer.grid is not None)
    print(f"{asked.bundle}, tile {asked.tile}³, {layer}, {asked.device}, {torch.get_num_threads()} threads")
    print(f"opened in {time.perf_counter() - start:.2f} s\n")
    print("| click | tile begins at | attention, s | receptive field, s | both, s | CPU s |")
    print("| --- | --- | --- | --- | --- | --- |")
    tiles = set()
    for click, voxel in enumerate(VOXELS, start=1):
        began, cpu = time.perf_counter(), time.process_time()
        subject.prepare(voxel)
        explain(subject, ["attention"], voxel, layer, 0)
        middle = time.perf_counter()
        explain(subject, ["field"], voxel, layer, 0, growth=False)
        if subject.device.type == "cuda":
            torch.cuda.synchronize()
        end = time.perf_counter()
        tile = subject.tile_at(voxel).start
        print(
            f"| {click} | {', '.join(map(str, tile))} | {middle - began:.2f} | {end - middle:.2f} | "
            f"{end - began:.2f} | {time.process_time() - cpu:.1f} |"
        )
        tiles.add(tile)
    kept = subject._graph[1].bytes if subject._graph else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{len(tiles)} tiles; {kept / 2**30:.2f} GiB kept for gradients; at most {peak:.1f} GiB of host memory.")


if __name__ == "__main__":
    main()
