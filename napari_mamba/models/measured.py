"""What was measured of the registered networks, as `docs/scripts/make_architectures.py` wrote it down."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

FILE = "measured.json"


@dataclass(frozen=True)
class Measured:
    """One network, built from the arguments of one of its vectors.

    Attributes
    ----------
    parameters : int or None
        That are trained; tied ones count once. None: not counted.
    input : tuple of int
        Shape (B, C, ...) of the vector's input.
    cpu_seconds : float or None
        Processor time of one forward pass on that input in one thread, float32, after a first one. None: not measured.
    relative_l2 : float or None
        Largest relative L2 distance of an output to the one of the authors' own code. None: not measured.
    machine : str
        Where that was.
    cuda_relative_l2 : float or None
        The same on a GPU, float32 without TF32. None: not measured.
    cuda_moved : float or None
        How far that answer moves, there, where every weight is multiplied by 1 + 6e-8 N(0, 1): what rounding alone may
        change. None: not measured, since the distance is small.
    cuda_to_float64 : float or None
        How far that answer is from our own in float64. None: not measured, since the distance is small.
    float64 : float or None
        How far our answer in float64 is from the authors' float32: how far those are rounded. None: as above.
    cuda_machine : str
        Where that was.
    """

    parameters: int | None = None
    input: tuple[int, ...] = field(default=())
    cpu_seconds: float | None = None
    relative_l2: float | None = None
    machine: str = ""
    cuda_relative_l2: float | None = None
    cuda_moved: float | None = None
    cuda_to_float64: float | None = None
    float64: float | None = None
    cuda_machine: str = ""


@cache
def measured() -> dict[str, Measured]:
    """Every measured network, by the name of its vector.

    Examples
    --------
    >>> measured()["UMambaEnc_3d_v2"].parameters
    42077199
    """
    found = json.loads(files("napari_mamba.models").joinpath(FILE).read_text(encoding="utf-8"))
    return {name: Measured(**facts | {"input": tuple(facts["input"])}) for name, facts in found.items()}
