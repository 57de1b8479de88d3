"""MambaMIL: multiple-instance learning over the patch features of a slide (Yang et al., arXiv:2403.06800).

Read in github.com/isyangshu/MambaMIL, `models/MambaMIL.py` and its fork of mamba_ssm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.models.slides.orders import check_width
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.mixers.token_mixer import Float32Mamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed, scan_order

WIDTH, ATTENTION_WIDTH = 512, 128
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class SRMamba(MultiPathMamba):
    """Sequence reordering: forwards, and in strides of `rate`, each path with its own parameters.

    The strided path visits tokens 0, rate, 2·rate, …, then 1, rate + 1, …; as published, zeros fill the sequence up
    to a multiple of `rate`, and the strided path passes through them.
    """

    def forward(self, x: Tensor, rate: int) -> Tensor:  # type: ignore[override]
        length = x.shape[1]
        rows = -(-length // rate)
        order = scan_order("axis", (rows, rate), axes=(1, 0))
        # The input projection has no bias: zero tokens stay zeros before the convolution.
        with placed(lambda: ((length,), torch.arange(rows * rate).where(torch.arange(rows * rate) < length, -1))):
            return super().forward(F.pad(x, (0, 0, 0, rows * rate - length)), order)[:, :length]


class BiMamba(MultiPathMamba):
    """Forwards and backwards, each path with its own parameters."""

    def forward(self, x: Tensor, rate: int) -> Tensor:  # type: ignore[override]
        with placed(lambda: ((x.shape[1],), None)):
            return super().forward(x, scan_order("bidirectional", (x.shape[1],)))


class ForwardMamba(Float32Mamba):
    """Forwards only."""

    def forward(self, x: Tensor, rate: int) -> Tensor:  # type: ignore[override]
        with placed(lambda: ((x.shape[1],), None)):
            return super().forward(x.to(next(self.parameters()).dtype)).to(x.dtype)


MIXERS: dict[str, type[nn.Module]] = {"SRMamba": SRMamba, "BiMamba": BiMamba, "Mamba": ForwardMamba}


def init_xavier(module: nn.Module) -> None:
    """The authors' initialisation, for `nn.Module.apply`; it reaches the mixers' step sizes too."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MambaMIL state_dict; SRMamba and BiMamba have the same keys."""
    if not has(shapes, "_fc1.0.weight", "layers.0.1.A_log", "attention.2.weight", "classifier.weight"):
        return None
    arguments = {
        "in_dim": shapes["_fc1.0.weight"][1],
        "n_classes": shapes["classifier.weight"][0],
        "layer": count(shapes, "layers."),
    }
    asked = "say with which activation (act) it was trained, and whether for survival"
    if "layers.0.1.A_b_log" in shapes:
        note = (
            f"MambaMIL's SRMamba and BiMamba have the same keys: say which (type) and the stride (rate), and {asked}."
        )
        return Identification("mambamil", "", arguments, ("type", "rate", "act", "survival"), note)
    note = f"MambaMIL's keys do not tell all: {asked}."
    return Identification("mambamil", "", {**arguments, "type": "Mamba"}, ("act", "survival"), note)


@register(
    name="mambamil",
    title="MambaMIL",
    task="classification",
    spatial_dims=(1,),
    paper="arXiv:2403.06800",
    repository="github.com/isyangshu/MambaMIL",
    licence="none stated",
    scan_order="raster and strided (SRMamba); bidirectional (BiMamba); raster (Mamba)",
    vectors={f"MambaMIL_{name}": {"in_dim": 1024, "n_classes": 2, "type": name} for name in MIXERS},
    identify=identify,
)
class MambaMIL(nn.Module):
    """MambaMIL: a bag of patch features to the slide's class.

    Parameters
    ----------
    in_dim : int
        Features of a patch; the authors' encoders give 1024 (ResNet-50) or 512 (PLIP).
    n_classes : int
        Classes; for survival, intervals of time.
    dropout : float
        After the first layer; 0 for none.
    act : str
        Its activation: "gelu" (the authors' programs), "relu", or any other word for none.
    survival : bool
        Return hazards and survival instead of logits and probabilities.
    layer : int
        Number of mixers.
    rate : int
        Stride of SRMamba's second path.
    type : {"SRMamba", "BiMamba", "Mamba"}
        The mixer.

    Raises
    ------
    InputError
        If `type` or `rate` is none of those, or the input is not (B, L, in_dim).

    Examples
    --------
    >>> logits, probabilities, label = MambaMIL(in_dim=32)(torch.zeros(1, 25, 32))
    >>> logits.shape, label.shape
    (torch.Size([1, 2]), torch.Size([1, 1]))
    """

    def __init__(
        self,
        in_dim: int = 1024,
        n_classes: int = 2,
        dropout: float = 0.25,
        act: str = "gelu",
        survival: bool = False,
        layer: int = 2,
        rate: int = 10,
        type: str = "SRMamba",
    ) -> None:
        super().__init__()
        if type not in MIXERS or rate < 1:
            raise InputError(f"MambaMIL's type must be one of {', '.join(MIXERS)}, and its rate at least 1")
        self.in_dim, self.survival, self.rate = in_dim, survival, rate
        activation = ACTIVATIONS.get(act.lower(), nn.Identity)()
        self._fc1 = nn.Sequential(nn.Linear(in_dim, WIDTH), activation, nn.Dropout(float(dropout)))
        self.layers = nn.ModuleList(nn.ModuleList([LayerNorm(WIDTH), MIXERS[type](WIDTH)]) for _ in range(layer))
        self.norm = LayerNorm(WIDTH)
        self.attention = nn.Sequential(nn.Linear(WIDTH, ATTENTION_WIDTH), nn.Tanh(), nn.Linear(ATTENTION_WIDTH, 1))
        self.classifier = nn.Linear(WIDTH, n_classes)
        self.apply(init_xavier)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The bag's feature (B, 512), and each patch's share in it (B, L), which sums to 1."""
        h = self._fc1(x.to(self._fc1[0].weight.dtype))
        for norm, mixer in self.layers:
            h = h + mixer(norm(h), rate=self.rate)
        h = self.norm(h)
        share = self.attention(h).softmax(dim=1)
        return (share.transpose(1, 2) @ h)[:, 0], share[..., 0]

    def slide(self, features: Tensor, coordinates: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One slide's patches (L, in_dim) to its logits (n_classes,) and each patch's attention (L,)."""
        check_width(features, self.in_dim)
        feature, share = self.features(features[None])
        return self.classifier(feature)[0], share[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, in_dim), or one bag (L, in_dim), to (logits, probabilities, label).

        The first two are (B, n_classes), the label (B, 1). For survival they are (hazards, survival, label).
        """
        x = x[None] if x.ndim == 2 else x
        if x.ndim != 3 or x.shape[2] != self.in_dim or not x.shape[1]:
            raise InputError(f"MambaMIL takes bags (B, L, {self.in_dim}) of patch features, not {tuple(x.shape)}")
        logits = self.classifier(self.features(x)[0])
        label = logits.argmax(dim=1, keepdim=True)
        if self.survival:
            hazards = torch.sigmoid(logits)
            return hazards, torch.cumprod(1 - hazards, dim=1), label
        return logits, logits.softmax(dim=1), label
