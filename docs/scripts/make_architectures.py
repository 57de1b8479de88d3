"""Write docs/architectures.md, the page of the networks, from their registry.

    python docs/scripts/make_architectures.py
    python docs/scripts/make_architectures.py --machine "AMD EPYC" --time [VECTOR...]
    python docs/scripts/make_architectures.py --gpu FILE

Counts parameters on the meta device. With `--time` every network (or those of the vectors named) also runs on the CPU
in one thread, on the input and with the weights of its parity vector: once to warm up, once timed and compared with the
vector. FILE is what `python -m benchmarks.networks.parity --write FILE` has measured on a GPU. What is measured is kept
in napari_mamba/models/measured.json, from where the command reads it too.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from time import process_time

import torch

from napari_mamba import models
from napari_mamba.models.measured import FILE, Measured

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "architectures.md"
MEASURED = REPOSITORY / "napari_mamba" / "models" / FILE
sys.path.insert(0, str(REPOSITORY / "tests" / "models"))

HEAD = """\
# Architectures

<!-- Written by docs/scripts/make_architectures.py. -->

The networks that a bundle can hold, from the registry in `napari_mamba.models`; `napari-mamba models --architectures`
lists the same. They are re-implementations from the papers, with the authors' argument names and state_dict keys.
"Licence" is that of the original code, whose terms may also hold for weights trained with it. UU-Mamba is U-Mamba
trained in another way: its weights are read as `umamba_enc` or `umamba_bot`, mostly of generation "v1".

`models.create(name, mixer="mamba2")` has Mamba-2's mixer where S6 was; so do "s4d" and "s5". Scan orders, norms and
what stands around a scan stay, parameters are new, and every path with parameters of its own gets a mixer of its own.
Both MambaIRv2 refuse, since learned prompts shift their scan's output matrix. `logits=True` leaves out the sigmoid
with which VM-UNet and its kin end.

In half precision (bfloat16 and float16 under autocast; scans, and what amplifies rounding, stay in float32) each
network is held to its float32 self: no NaN, also on zeros, on values up to 255 and on a spike of 1000; images within
1% (relative L2); labels equal for 99.5% of pixels, in bfloat16 and with random weights of those whose first class
leads by a tenth of the logits' deviation (`tests/models/test_half_precision.py`).
"""
CHECKS = """\
## What they were checked against

Each vector holds what the authors' own code computed in float32 on weights that are a function of key and shape
(`tests/models/vectors`, `tests/models/test_parity.py`). Keys, shapes, tied tensors and the number of parameters are
equal; "relative L2" is ||ours - theirs|| / ||theirs|| of the outputs in one thread. The test allows 1e-4, save for
six vectors that amplify rounding. In float64 our `UMambaEnc_2d_v2`, `UMambaEnc_3d_v2` and `LocalVim_T` lie 1.6e-4,
3.2e-4 and 7.8e-4 from the authors' float32 outputs, which is the rounding of those outputs themselves, and the test
allows as much (`LocalVim_T_depth8` is the same network, shallower); in float32 the first two lie 9e-5 to 1.9e-4 away,
by the processor and the number of threads. Moving the input of the latter by 7e-8, float32's last bit, moves its
output by 2.5e-4 (that of `UMambaBot_3d_v2` by 4.2e-6). Matrix LSTMs amplify it, too: one bit of every weight moves
`VisionLSTM_tiny`, `VisionLSTM2_tiny` and `UxLSTMEnc_3d` by 1.2e-4, 1.6e-4 and 1e-4, of which the test allows three
times; the first two are the authors' numbers bit for bit on the CPU that was tried, and shallower ones lie within 5e-6.

On an NVIDIA H200 all 108 vectors ran, those of single layers too, in float32 with the scan's own kernels and without
TF32: 101 lie within 1e-4 ("on a GPU"). The other seven lie 1.4e-4 to 5.9e-4 away, which is rounding (the last table).
In six of them the authors' own float32 lies 1.0e-4 to 7.8e-4 from our float64, and the GPU's no more than 1.6 times as
far. In the seventh, `UxLSTMEnc_3d`, theirs lies 5.1e-5 and the GPU's 2.3e-4 from it, and half a bit of every weight
moves it by 2.6e-4. Shallower ones, where a bit grows less, lie within 1e-5: `LocalVim_T_depth8`,
`VisionLSTM_tiny_depth6`, `VisionLSTM2_tiny_depth2`; of U-Mamba there is the Bot network, which differs from Enc in
where scans stand. PyTorch's convolutions take TF32 on such a GPU unless told otherwise, which on an H100 added 1e-3 in
most networks and up to a fifth in U-Mamba Enc with these random weights.

Networks of a hundred million weights or more are not in every run of the tests: `pytest -m heavy tests/models` checks
them. FDV-Net's vector holds what its blocks and its first mixer give, since its image hardly shows them; of VMRNN the
last prediction and part of what its cells remember are compared, of GFE-Mamba the vector behind the logits too.

"CPU seconds" is the processor time of one forward pass on the whole input shown, float32, in one thread, after a first
pass that is not counted; "–" was not measured. Other work ran on the machine, so read off no more than the magnitude.
"""


GPU = ("relative_l2", "moved", "to_float64", "float64")
"""What is kept of a vector on a GPU."""
ROUNDING = """\
## Where rounding decides

Vectors that lay further than 3e-5 away on the GPU, each once more in float64 and with moved weights: how far the GPU's
float32 is from the authors' float32, how far either is from our float64, and how far half a bit of every weight
(times 1 + 6e-8 N(0, 1)) moves the GPU's answer (`python -m benchmarks.networks.parity --write FILE`).
"""


def count(network: str, vector: str) -> int:
    """Trained parameters, without allocating them."""
    with torch.device("meta"):
        built = models.create(network, **models.info(network).vectors[vector])
    return sum(parameter.numel() for parameter in built.parameters())


@torch.inference_mode()
def time_once(network: str, name: str) -> tuple[float, float]:
    """CPU seconds of the second forward pass on the vector's input, and its relative L2 error."""
    import parity_vectors

    vector = parity_vectors.load(name)
    built = parity_vectors.build(network, vector)
    inputs = vector.inputs()
    seed = re.search(r"_seed(\d+)$", name)
    for _ in range(2):
        if seed:
            torch.manual_seed(int(seed.group(1)))
        since = process_time()
        outputs = parity_vectors.run(name, built, inputs)
        seconds = process_time() - since
    triples = zip(parity_vectors.flatten(outputs), vector.outputs, vector.spec["outputs"], strict=True)
    return seconds, max(parity_vectors.relative_l2(*triple) for triple in triples)


def measure(kept: dict[str, Measured], wanted: list[str] | None, machine: str) -> dict[str, Measured]:
    """Parameters of every network, and times of the `wanted` vectors: all if the list is empty, none if it is None."""
    import parity_vectors

    found = {}
    for network, name in parity_vectors.registered():
        before = kept.get(name, Measured())
        found[name] = replace(
            before, parameters=count(network, name), input=tuple(parity_vectors.load(name).spec["input"])
        )
        if wanted is not None and (not wanted or name in wanted):
            seconds, error = time_once(network, name)
            digits = float(f"{seconds:.2g}"), float(f"{error:.1e}")
            found[name] = replace(found[name], cpu_seconds=digits[0], relative_l2=digits[1], machine=machine)
            print(f"{name}  {seconds:.2f} s  {error:.1e}", flush=True)
            save({**kept, **found})
    return found


def with_gpu(kept: dict[str, Measured], file: Path) -> dict[str, Measured]:
    """What a GPU was measured to give, beside the rest."""
    told = json.loads(file.read_text())
    for name, row in told["vectors"].items():
        if row.get("network") and "relative_l2" in row:
            found = {key: float(f"{row[key]:.1e}") if key in row else None for key in GPU}
            gpu = {f"cuda_{key}".replace("cuda_float64", "float64"): value for key, value in found.items()}
            kept[name] = replace(kept.get(name, Measured()), **gpu, cuda_machine=told["machine"])
    return kept


def save(found: dict[str, Measured]) -> None:
    """Keep what was measured."""
    facts = {
        name: {key: value for key, value in asdict(one).items() if key == "input" or value not in (None, "")}
        for name, one in sorted(found.items())
    }
    MEASURED.write_text(json.dumps(facts, indent=1) + "\n")


def load() -> dict[str, Measured]:
    """What was measured before."""
    return (
        {name: Measured(**one) for name, one in json.loads(MEASURED.read_text()).items()} if MEASURED.exists() else {}
    )


def page(found: dict[str, Measured]) -> str:
    """The page as Markdown."""
    found_of = [(m.name, vector, found.get(vector, Measured())) for m in models.list_models() for vector in m.vectors]
    on_gpu = any(one.cuda_relative_l2 is not None for one in found.values())
    checks = [
        [
            f"`{name}`",
            f"`{vector}`",
            shown(one.parameters, ",d"),
            "x".join(map(str, one.input)),
            shown(one.relative_l2, ".1e"),
            *([shown(one.cuda_relative_l2, ".1e")] if on_gpu else []),
            shown(one.cpu_seconds, "g"),
        ]
        for name, vector, one in found_of
    ]
    gpu = ["on a GPU"] if on_gpu else []
    parts = [
        HEAD,
        table(
            ["name", "title", "task", "dims", "scan order", "paper", "repository", "licence"],
            [facts(m) for m in models.list_models()],
        ),
        CHECKS,
        table(["network", "vector", "parameters", "input", "relative L2", *gpu, "CPU seconds"], checks),
    ]
    if rounded := rounding(found):
        parts += [ROUNDING, rounded]
    machines = {one.machine for one in found.values()} | {one.cuda_machine for one in found.values()}
    if named := sorted(filter(None, machines)):
        parts.append(f"Measured on {'; '.join(named)}.\n")
    return "\n".join(parts)


def rounding(found: dict[str, Measured]) -> str:
    """The table of the vectors whose rounding was measured, the furthest first; empty if there is none."""
    far = [(one.cuda_relative_l2 or 0.0, name, one) for name, one in found.items() if one.float64 is not None]
    rows = [
        [f"`{name}`", *(shown(v, ".1e") for v in (away, one.float64, one.cuda_to_float64, one.cuda_moved))]
        for away, name, one in sorted(far, reverse=True)
    ]
    headings = ["vector", "GPU to authors", "authors to float64", "GPU to float64", "half a bit moves it"]
    return table(headings, rows) if rows else ""


def facts(model: models.ModelInfo) -> list[str]:
    """A network's row."""
    dims = "/".join(f"{n}D" for n in model.spatial_dims)
    repository = f"[{model.repository.removeprefix('github.com/')}](https://{model.repository})"
    if not model.repository:
        repository = "this project"
    paper = paper_link(model.paper)
    return [f"`{model.name}`", model.title, model.task, dims, model.scan_order, paper, repository, model.licence]


def paper_link(paper: str) -> str:
    """A paper's identifier, linked where it is arXiv's."""
    return re.sub(r"arXiv:(\d+\.\d+)", r"[\g<0>](https://arxiv.org/abs/\1)", paper)


def shown(value: float | None, form: str) -> str:
    """A number, or a dash."""
    return "–" if value is None else format(value, form)


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", nargs="*", metavar="VECTOR", help="run networks on the CPU: those named, or all")
    parser.add_argument("--machine", default="", help="the processor, as the page should call it")
    parser.add_argument("--gpu", type=Path, metavar="FILE", help="what benchmarks.networks.parity wrote on a GPU")
    asked = parser.parse_args()
    machine = ", ".join(part for part in (asked.machine, f"torch {torch.__version__}") if part)
    if asked.time is not None:
        torch.set_num_threads(1)
    found = measure(load(), asked.time, machine)
    if asked.gpu is not None:
        found = with_gpu(found, asked.gpu)
    save(found)
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main()
