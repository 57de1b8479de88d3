"""What a run over a very large volume needs, on paper: requests, GPU hours, cost, and what it is bounded by first.

    python -m benchmarks.scale.petabyte [--voxels 1e15] [--rate 5e7] ...

Nothing is measured here. `--rate` is what one GPU computes in voxels a second, tiles and their overlap included: take
it from the report of a run on yours. Prices are list prices of large object stores and of rented GPUs, rounded.
"""

from __future__ import annotations

import argparse


def figures(
    voxels: float, rate: float, gpus: int, chunk: int, shard: int, block: int, tile: int, stream: float
) -> list[tuple[str, str]]:
    """Rows of the table; sides are in voxels, `stream` in bytes a second that one worker gets from the store."""
    passes = 1  # of the checks and the statistics; then the tiles
    margin = ((block + tile) / block) ** 2
    chunks, objects = voxels / chunk**3, voxels / shard**3
    gets = chunks * (passes + margin)
    puts = voxels / (64 * 128 * 128) * 8 / 7  # chunks of the answer, which is not sharded, with all levels
    hours = voxels / rate / 3600
    days = hours / gpus / 24
    needed = voxels * (passes + margin) / (days * 86400) / gpus
    rows = [
        ("voxels (bytes of uint8)", f"{voxels:.1e}"),
        (f"chunks of {chunk}³, and shards of {shard}³ that hold them", f"{chunks:.2g} and {objects:.2g}"),
        (f"tiles computed twice at blocks {block} voxels wide", f"{margin - 1:.0%}"),
        ("reads of chunks (one pass, then the tiles)", f"{gets:.2g}"),
        ("cost of the reads at $0.4 a million", f"${gets / 1e6 * 0.4:,.0f}"),
        ("writes of labels in chunks of 64×128², all levels, empty ones left out", f"at most {puts:.2g}"),
        ("cost of the writes at $5 a million", f"${puts / 1e6 * 5:,.0f}"),
        (f"entries of the journal, one a block of {block}²×64", f"{voxels / (block**2 * 64):.2g}"),
        (f"GPU hours at {rate:.0e} voxels a second", f"{hours:,.0f}"),
        ("cost at $2 an hour", f"${hours * 2:,.0f}"),
        (f"days on {gpus} GPUs", f"{days:.1f}"),
        ("bytes a second that each GPU has to be given", f"{needed / 1e6:.0f} MB"),
        ("the same for all GPUs together", f"{needed * gpus / 1e9:.1f} GB"),
    ]
    first = "reading" if needed > stream else "computing"
    rows.append((f"first bottleneck, where a worker reads {stream / 1e6:.0f} MB/s", first))
    return rows


def main() -> None:
    """Print the table of docs/scale.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=float, default=1e15)
    parser.add_argument("--rate", type=float, default=5e7)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--shard", type=int, default=1024)
    parser.add_argument("--block", type=int, default=768)
    parser.add_argument("--tile", type=int, default=64)
    parser.add_argument("--stream", type=float, default=2e8)
    print("| | |\n| --- | --- |")
    for name, value in figures(**vars(parser.parse_args())):
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
