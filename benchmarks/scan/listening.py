"""What a listener costs: `python -m benchmarks.scan.listening`.

The operators with nobody listening, beside copies of them from which the question whether somebody does was cut; and a
network alone, listened to by somebody who keeps nothing, and after that. Best of many runs, one thread.
"""

from __future__ import annotations

import ast
import inspect
import random
import textwrap
import timeit

import torch

from napari_mamba import models
from napari_mamba.scan import listen, operator


def without_the_question(function):
    """The same function without its `if listening.ACTIVE:` blocks."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    body = tree.body[0].body  # type: ignore[attr-defined]
    kept = [node for node in body if not (isinstance(node, ast.If) and "listening.ACTIVE" in ast.unparse(node.test))]
    assert len(kept) == len(body) - 1
    tree.body[0].body = kept  # type: ignore[attr-defined]
    space = dict(vars(operator))
    exec(compile(tree, function.__name__, "exec"), space)
    return space[function.__name__]


def best(*functions, number: int, repeats: int = 60) -> list[float]:
    """Least seconds a call of each, their rounds mixed so that none has the quieter minute."""
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, found in random.sample(list(zip(functions, times, strict=True)), len(functions)):
            found.append(timeit.timeit(function, number=number) / number)
    return [min(found) for found in times]


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    print("| operator, tokens x channels | with the question, µs | without, µs |\n| --- | --- | --- |")
    for length, number in ((8, 300), (512, 100), (32768, 2)):
        u, rows = torch.randn(1, length, 16), torch.randn(1, length, 16)
        scan = (u, torch.rand(1, length, 16), -torch.ones(16, 16), rows, rows)
        conv = (u, torch.randn(16, 4))
        for name, arguments in (("selective_scan", scan), ("causal_conv1d", conv)):
            asking = getattr(operator, name)
            plain = without_the_question(asking)
            t = best(lambda f=asking, a=arguments: f(*a), lambda f=plain, a=arguments: f(*a), number=number)
            print(f"| {name}, {length} x 16 | {1e6 * t[0]:.2f} | {1e6 * t[1]:.2f} |")
    question = timeit.timeit("if listening.ACTIVE: pass", globals=vars(operator), number=10**6)
    print(f"\nThe question alone takes {1e3 * question:.0f} ns.\n")
    network = models.create("segmamba", out_chans=3, depths=[1] * 4, feat_size=[8, 8, 16, 16], hidden_size=16).eval()
    x = torch.randn(1, 1, 32, 32, 32)

    def heard() -> None:
        with listen(network, lambda call: None):
            network(x)

    alone, told, after = best(lambda: network(x), heard, lambda: network(x), number=1)
    print(f"SegMamba on 32³ voxels: {1e3 * alone:.1f} ms alone, {1e3 * told:.1f} heard, {1e3 * after:.1f} after that.")


if __name__ == "__main__":
    main()
