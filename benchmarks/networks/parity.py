"""Every registered network on a GPU beside its authors' numbers: `python -m benchmarks.networks.parity [--write FILE]`.

The parity vectors of `tests/models` hold what the authors' own code computed. Each network runs in float32, without
TF32. One that lies further away than 3e-5 runs in float64 too, and once more with every weight moved by half a bit:
what that changes is what rounding alone may change. Several processes share the GPU, since filling weights takes longer
than the networks do. `python docs/scripts/make_architectures.py --gpu FILE` takes what was written into the page.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue
import re
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
NEAR = 3e-5
"""Below this no network is asked for more."""
HALF_A_BIT = 6e-8


def rows_of(network: str, name: str, device: str) -> dict[str, Any]:
    """One vector's row: relative L2 to the authors' outputs, and where that is not small what rounding alone does."""
    import parity_vectors
    import torch

    since = time.perf_counter()
    vector = parity_vectors.load(name)
    built = parity_vectors.build(network, vector) if network else parity_vectors.layer(vector)
    built = built.to(device)

    def outputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
        inputs = [x.to(device, dtype if x.is_floating_point() else x.dtype) for x in vector.inputs()]
        if seed := re.search(r"_seed(\d+)$", name):
            torch.manual_seed(int(seed.group(1)))
        return parity_vectors.flatten(parity_vectors.run(name, built.to(dtype), inputs))

    def distance(found: list[torch.Tensor]) -> float:
        triples = zip(found, vector.outputs, vector.spec["outputs"], strict=True)
        return max(parity_vectors.relative_l2(*triple) for triple in triples)

    row: dict[str, Any] = {"network": network, "parameters": vector.params}
    with torch.inference_mode():
        found = outputs()
        row["relative_l2"] = distance(found)
        if row["relative_l2"] > NEAR and not name.endswith("_seed123"):
            exact = outputs(torch.float64)
            row["float64"] = distance(exact)
            row["to_float64"] = apart(found, exact)
            built.float().load_state_dict(moved(built.state_dict()))
            row["moved"] = apart(outputs(), found)
    return row | {"seconds": round(time.perf_counter() - since, 2)}


def moved(weights: dict[str, Any]) -> dict[str, Any]:
    """Every floating-point tensor times 1 + 6e-8 N(0, 1), tied ones alike."""
    import torch

    noise, done = torch.Generator().manual_seed(0), {}
    for value in weights.values():
        if value.data_ptr() not in done and value.is_floating_point():
            factor = 1 + HALF_A_BIT * torch.randn(value.shape, generator=noise, dtype=torch.float64)
            done[value.data_ptr()] = (value.double() * factor.to(value.device)).to(value.dtype)
    return {key: done.get(value.data_ptr(), value) for key, value in weights.items()}


def apart(found: list[Any], others: list[Any]) -> float:
    """The largest relative L2 distance between two networks' outputs."""
    pairs = [(a.double(), b.double()) for a, b in zip(found, others, strict=True)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def work(jobs: Any, answers: Any, device: str, until: float) -> None:
    """A process's part: take vectors until there are none, or no time."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "models"))
    import torch

    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    while time.time() < until:
        try:
            network, name = jobs.get(timeout=1)
        except queue.Empty:
            break
        try:
            answers.put((name, rows_of(network, name, device)))
        except BaseException as error:  # pytest's skips too: a benchmark says why a row is missing, whatever the reason
            said = (str(error).splitlines() or [""])[0][:300]
            answers.put((name, {"network": network, "reason": f"{type(error).__name__}: {said}"}))
    answers.put(None)


def vectors(wanted: list[str]) -> list[tuple[str, str]]:
    """(network, vector), those of most weights first; layers that no network is named after have no network."""
    import parity_vectors

    found = parity_vectors.registered() + [("", name) for name in parity_vectors.LAYERS]
    found = [pair for pair in found if not wanted or pair[1] in wanted]
    return sorted(found, key=lambda pair: -parity_vectors.load(pair[1]).params)


def main() -> None:
    """Print a line a vector, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", nargs="*", default=[], metavar="NAME", help="these alone")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=130, help="no vector is begun after that")
    parser.add_argument("--write", type=Path, metavar="FILE", help="JSON, whole after every vector")
    asked = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY / "tests" / "models"))
    wanted = vectors(asked.vectors)
    context = multiprocessing.get_context("spawn")
    jobs, answers = context.Queue(), context.Queue()
    for pair in wanted:
        jobs.put(pair)
    facts = (asked.device, time.time() + asked.seconds)
    workers = [context.Process(target=work, args=(jobs, answers, *facts), daemon=True) for _ in range(asked.processes)]
    for worker in workers:
        worker.start()
    found: dict[str, Any] = {"machine": machine(asked.device), "vectors": {}}
    ended = 0
    while ended < len(workers) and (any(worker.is_alive() for worker in workers) or not answers.empty()):
        try:
            told = answers.get(timeout=1)
        except queue.Empty:
            continue
        if told is None:
            ended += 1
            continue
        name, row = told
        found["vectors"][name] = row
        print(f"{name:36}", "  ".join(f"{key} {shown(value)}" for key, value in row.items()), flush=True)
        if asked.write:
            asked.write.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    missing = [name for _, name in wanted if "relative_l2" not in found["vectors"].get(name, {})]
    far = [name for name, row in found["vectors"].items() if row.get("relative_l2", 0) > 1e-4]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} vectors ran; not: {missing}; further than 1e-4: {far}")


def machine(device: str) -> str:
    """The GPU and PyTorch's version."""
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    return f"{name}, torch {torch.__version__}"


def shown(value: object) -> str:
    """Short."""
    return f"{value:.1e}" if isinstance(value, float) and value < 1e-2 else str(value)


if __name__ == "__main__":
    main()
