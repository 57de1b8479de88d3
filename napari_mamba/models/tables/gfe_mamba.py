"""GFE-Mamba: who of those with mild impairment will have Alzheimer's disease, by MR, PET and a table (Fang et al.).

arXiv:2407.15719; read in github.com/Tinysqua/GFE-Mamba, `cross_atten/mamba_transformer.py: Cross_mamba_both` and
`classify/classifier.py: Combine_classfier_vit_mid`. The PET is what `gfe_generator.py` makes of the MR image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.mamba import Mamba
from napari_mamba.nn.norms.norm import LayerNorm, RMSNorm
from napari_mamba.scan import placed

PARTS = ("model", "ft_model", "generator")
"""What the authors save in files of their own: `best_model.pth`, `best_ft_model.pth`, and the generator."""


def joined(*parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of two or three files, in the order of `PARTS`, under the keys of one network.

    Examples
    --------
    >>> list(joined({"vit_mid_linear.bias": torch.zeros(4)}, {"cls_token": torch.zeros(1, 1, 8)}))
    ['model.vit_mid_linear.bias', 'ft_model.cls_token']
    """
    pairs = zip(PARTS[: len(parts)], parts, strict=True)
    return {f"{part}.{key}": tensor for part, weights in pairs for key, tensor in weights.items()}


class Mixer(Float32Module, Mamba):
    """Mamba over the tokens of a table and images, in float32: they are no places."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        with without_autocast(x), placed(lambda: None):
            return super().forward(x.to(next(self.parameters()).dtype)).to(x.dtype)


class Layer(nn.Module):
    """Norm, mixer, residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixer, self.norm = Mixer(dim), RMSNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixer(self.norm(x))


class NumberEmbedding(nn.Module):
    """Each number times a vector of its own, plus another."""

    def __init__(self, numbers: int, dim: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(numbers, dim))
        self.biases = nn.Parameter(torch.randn(numbers, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None] * self.weights + self.biases


class CrossAttention(nn.Module):
    """Attention of tokens (B, L, C) to others of another width."""

    def __init__(self, heads: int, dim: int, wide: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.k_proj, self.v_proj = nn.Linear(wide, dim), nn.Linear(wide, dim)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        rows = self.q_proj(x), self.k_proj(others), self.v_proj(others)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in rows)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Gated(nn.Module):
    """One half of the channels times the GELU of the other."""

    def forward(self, x: Tensor) -> Tensor:
        x, gate = x.chunk(2, dim=-1)
        return x * F.gelu(gate)


class TableMamba(nn.Module):
    """Scans the tokens of a row and of images; their mean looks at every slice of both volumes."""

    def __init__(
        self,
        categories: Sequence[int],
        num_continuous: int,
        dim: int,
        depth: int,
        heads: int,
        dim_out: int,
        num_special_tokens: int,
        mult: int,
        drop: float,
        pixels: int,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        if categories:
            first = list(accumulate(categories[:-1], initial=num_special_tokens))
            self.register_buffer("categories_offset", torch.tensor(first))
            self.categorical_embeds = nn.Embedding(sum(categories) + num_special_tokens, dim)
        if num_continuous:
            self.numerical_embedder = NumberEmbedding(num_continuous, dim)
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(Layer(dim) for _ in range(depth))})
        self.final_cross = CrossAttention(heads, dim, pixels)
        wide, narrow = nn.Linear(dim, 2 * mult * dim), nn.Linear(mult * dim, dim)
        self.final_feed = nn.Sequential(LayerNorm(dim), wide, Gated(), nn.Dropout(drop), narrow)
        self.to_logits = nn.Sequential(LayerNorm(dim), nn.Linear(dim, dim_out))

    def _embedded(self, categories: Tensor) -> Tensor:
        rows = categories + self.categories_offset
        known = self.categorical_embeds.num_embeddings
        if rows.min() < 0 or rows.max() >= known:
            raise InputError(f"a category of the row is none that the network knows: {categories.tolist()}")
        return self.categorical_embeds(rows)

    def forward(self, categories: Tensor, numbers: Tensor, images: Tensor, slices: Tensor) -> Tensor:
        """The vector (B, C) that the logits are made of."""
        parts = [self.cls_token.expand(len(images), -1, -1)]
        parts += [self._embedded(categories)] if hasattr(self, "categorical_embeds") else []
        parts += [self.numerical_embedder(numbers)] if hasattr(self, "numerical_embedder") else []
        x = torch.cat([*parts, images.to(self.cls_token.dtype)], dim=1)
        for layer in self.transformer["layers"].children():
            x = layer(x)
        x = x.mean(dim=1, keepdim=True)
        x = x + self.final_cross(x, slices)
        return (x + self.final_feed(x))[:, 0]


def identify(shapes: Shapes) -> Identification | None:
    """Recognise the two files' weights, joined."""
    table = "ft_model."
    if any(key.startswith("generator.") for key in shapes):  # see `gfe_pair.py`
        return None
    if not has(shapes, "model.vit_mid_linear.weight", f"{table}cls_token", f"{table}final_cross.k_proj.weight"):
        return None
    kinds = shapes.get(f"{table}categories_offset", (0,))[0]
    # How many values each category has is in the buffer's values; only their sum is in the shapes.
    known = shapes.get(f"{table}categorical_embeds.weight", (2,))[0] - 2
    dim = shapes[f"{table}cls_token"][2]
    return Identification(
        "gfe_mamba",
        arguments={
            "categories": [1] * (kinds - 1) + [known - kinds + 1] if kinds else [],
            "num_continuous": shapes.get(f"{table}numerical_embedder.weights", (0,))[0],
            "dim": dim,
            "dim_out": shapes[f"{table}to_logits.1.weight"][0],
            "depth": count(shapes, f"{table}transformer.layers."),
            "seq_length": shapes["model.vit_mid_linear.weight"][0],
            "cross_ff_multi": shapes[f"{table}final_feed.4.weight"][1] // dim,
            "slice_pixels": shapes[f"{table}final_cross.k_proj.weight"][1],
            "mid_positions": shapes["model.vit_mid_linear.weight"][1],
        },
        ambiguous=("heads",),
        note="The weights do not say how many heads the attention has: the authors have 8.",
    )


@register(
    name="gfe_mamba",
    title="GFE-Mamba",
    task="classification",
    spatial_dims=(3,),
    paper="arXiv:2407.15719",
    repository="github.com/Tinysqua/GFE-Mamba",
    licence="MIT",
    scan_order="raster",
    vectors={"GFEMamba": {"categories": [2, 5, 3, 4], "num_continuous": 9, "heads": 8, "seq_length": 4}},
    identify=identify,
)
class GFEMamba(nn.Module):
    """GFE-Mamba's classifier; its authors save it in two files, see `joined`.

    Parameters
    ----------
    categories : sequence of int
        How many values each of the row's categories has.
    num_continuous : int
        Numbers of the row, which its authors standardise.
    dim : int
        Channels of a token: twice those of the generator's deepest level.
    depth, heads : int
        Scanning layers; heads of the attention to the slices.
    dim_out, seq_length : int
        Logits; tokens that the generator's maps become.
    num_special_tokens : int
        Rows of the table of categories before the first.
    cross_ff_multi, cross_ff_dropout
        Hidden channels per channel, and dropout, of the perceptron after the attention.
    slice_pixels, mid_positions : int
        Pixels of an axial slice, positions of the generator's maps.
    dim_head, attn_dropout, ff_dropout
        The authors' arguments that change nothing.

    Raises
    ------
    InputError
        If the row has other columns, or the volumes other slices, than the network was built for.
    """

    def __init__(
        self,
        *,
        categories: Sequence[int],
        num_continuous: int,
        dim: int = 512,
        depth: int = 6,
        heads: int = 8,
        dim_head: int = 16,
        dim_out: int = 1,
        num_special_tokens: int = 2,
        attn_dropout: float = 0.0,
        ff_dropout: float = 0.0,
        cross_ff_multi: int = 2,
        cross_ff_dropout: float = 0.1,
        seq_length: int = 1,
        slice_pixels: int = 160 * 160,
        mid_positions: int = 320 * 120,
    ) -> None:
        super().__init__()
        if any(values < 1 for values in categories) or len(categories) + num_continuous < 1:
            raise InputError("GFE-Mamba needs a row of at least one column, and categories of at least one value")
        self.columns, self.pixels = (len(categories), num_continuous), slice_pixels
        self.model = nn.ModuleDict({"vit_mid_linear": nn.Linear(mid_positions, seq_length)})
        self.ft_model = TableMamba(
            categories, num_continuous, dim, depth, heads, dim_out, num_special_tokens, cross_ff_multi,
            cross_ff_dropout, slice_pixels,
        )  # fmt: skip

    def _slices(self, volume: Tensor) -> Tensor:
        """Every slice (B, D, pixels) of (B, 1, H, W, D)."""
        if volume.ndim != 5 or volume.shape[1] != 1 or volume.shape[2:4].numel() != self.pixels:
            raise InputError(
                f"GFE-Mamba takes volumes of one channel with {self.pixels} pixels a slice, slices along the last "
                f"axis, not {tuple(volume.shape[1:])}: resample to it"
            )
        return volume.flatten(0, 1).flatten(1, 2).transpose(1, 2)

    def forward(
        self,
        x_categ: Tensor,
        x_numer: Tensor,
        mid_input: Tensor,
        mid_output: Tensor,
        mri: Tensor,
        pet: Tensor,
        return_features: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, dim_out) of rows, the generator's maps and volumes.

        Parameters
        ----------
        x_categ : Tensor
            (B, categories) int64, each from 0.
        x_numer : Tensor
            (B, num_continuous).
        mid_input, mid_output : Tensor
            (B, C, H, W), what enters and leaves the generator's transformer.
        mri, pet : Tensor
            (B, 1, H, W, D).
        return_features : bool
            Also return the vectors (B, dim) that the logits are made of.
        """
        if (x_categ.shape[1], x_numer.shape[1]) != self.columns:
            raise InputError(
                f"the row has {x_categ.shape[1]} categories and {x_numer.shape[1]} numbers, the network was trained "
                f"with {self.columns[0]} and {self.columns[1]}: give the same columns"
            )
        slices = torch.cat([self._slices(mri), self._slices(pet)], dim=1)
        maps = torch.cat([mid_input, mid_output], dim=1).flatten(2)
        images = self.model["vit_mid_linear"](maps).transpose(1, 2)
        features = self.ft_model(x_categ, x_numer, images, slices)
        logits = self.ft_model.to_logits(features)
        return (logits, features) if return_features else logits


def classify(
    classifier: nn.Module, generator: nn.Module, categories: Tensor, numbers: Tensor, mri: Tensor
) -> tuple[Tensor, Tensor]:
    """The logits of rows and MR images (B, 1, H, W, D), and the PET that the generator makes for them."""
    entering, leaving, pet = generator(mri, output_vit_mid=True)
    return classifier(categories, numbers, entering, leaving, mri, pet), pet
