"""GFE-Mamba as its authors run it: the generator makes a PET of the MR image, and the classifier sees both and a row.

Fang et al., arXiv:2407.15719; read in github.com/Tinysqua/GFE-Mamba, `classify/classifier.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.tables import gfe_generator, gfe_mamba
from napari_mamba.models.tables.gfe_generator import GFEGenerator
from napari_mamba.models.tables.gfe_mamba import GFEMamba

PREFIX = "generator."


def identify(shapes: Shapes) -> Identification | None:
    """Recognise the three files' weights, joined by `joined`."""
    inside = {key.removeprefix(PREFIX): shape for key, shape in shapes.items() if key.startswith(PREFIX)}
    generator = gfe_generator.identify(inside) if inside else None
    classifier = gfe_mamba.identify({key: shape for key, shape in shapes.items() if not key.startswith(PREFIX)})
    if generator is None or classifier is None:
        return None
    return Identification(
        "gfe_mamba_pair",
        arguments={**classifier.arguments, "generator": dict(generator.arguments)},
        ambiguous=("heads", *(("generator",) if generator.ambiguous else ())),
        note=" ".join(note for note in (classifier.note, generator.note) if note),
    )


@register(
    name="gfe_mamba_pair",
    title="GFE-Mamba with its generator",
    task="classification",
    spatial_dims=(3,),
    paper="arXiv:2407.15719",
    repository="github.com/Tinysqua/GFE-Mamba",
    licence="MIT",
    scan_order="raster",
    identify=identify,
)
class GFEPair(GFEMamba):
    """GFE-Mamba's classifier and its generator as one network of an MR image and a row.

    Parameters
    ----------
    generator : mapping
        Arguments of `gfe_mamba_generator`; its `image_size` has the slices along the last axis.
    in_channels : int
        1: the PET is what the generator makes; 2: a PET of the person is given behind the MR image.
    **classifier
        Arguments of `gfe_mamba`.
    """

    def __init__(self, *, generator: Mapping[str, Any], in_channels: int = 1, **classifier: Any) -> None:
        super().__init__(**classifier)
        if in_channels not in (1, 2):
            raise InputError(f"GFE-Mamba takes an MR image, or an MR image and a PET, not {in_channels} channels")
        self.generator = GFEGenerator(**generator)
        self.in_channels = in_channels
        categories, numbers = self.columns
        self.register_buffer("row_categories", torch.zeros(1, categories, dtype=torch.int64), persistent=False)
        self.register_buffer("row_numbers", torch.zeros(1, numbers), persistent=False)

    def take_row(self, categories: Sequence[int], numbers: Sequence[float]) -> None:
        """The row of those volumes that come from now on: which value each category has, and standardised numbers."""
        if (len(categories), len(numbers)) != self.columns:
            raise InputError(
                f"the row has {len(categories)} categories and {len(numbers)} numbers, the network was trained with "
                f"{self.columns[0]} and {self.columns[1]}: give the same columns"
            )
        self.row_categories.copy_(torch.tensor([list(categories)], dtype=torch.int64))
        self.row_numbers.copy_(torch.tensor([list(numbers)]))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, dim_out) of volumes (B, in_channels, Z, Y, X) and the row that `take_row` was given."""
        x = x.permute(0, 1, 4, 3, 2)  # the authors read images with their slices along the last axis
        entering, leaving, made = self.generator(x[:, :1], output_vit_mid=True)
        pet = x[:, 1:] if self.in_channels == 2 else made
        rows = self.row_categories.expand(len(x), -1), self.row_numbers.expand(len(x), -1)
        logits = super().forward(*rows, entering, leaving, x[:, :1], pet)
        assert isinstance(logits, Tensor)  # features were not asked for
        return logits
