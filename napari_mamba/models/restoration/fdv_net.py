"""FDV-Net (FDVM-Net): exposure of endoscopic images corrected in the frequency domain (Zheng et al., arXiv:2402.06378).

Read in github.com/zzr-idam/FDV-NET, `FDVNet.py` and `CSSM.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.mamba import Mamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed

COLOURS, HIDDEN = 3, 8


class Mixer(Float32Module, Mamba):
    """Mamba over rows that are no places: a row mixes three neighbours of a spectrum, or of its next channel."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        with placed(lambda: None):
            return super().forward(x)


class FrequencyBlock(nn.Module):
    """Scans and convolutions of the real and of the imaginary part of a spectrum, which look at each other.

    The softmax runs over the *batch*, as published: of a single image it is 1 everywhere, of more each depends on the
    others. Both parts' attention comes of the real part, and `cross_2` is stored and never used.
    """

    def __init__(self, cells: int) -> None:
        super().__init__()
        ends = nn.Conv2d(COLOURS, HIDDEN, 3, padding=1), nn.Conv2d(HIDDEN, COLOURS, 3, padding=1)
        self.convb = nn.Sequential(ends[0], nn.ReLU(), ends[1])
        self.ln = LayerNorm(COLOURS)
        self.model1, self.model2 = Mixer(COLOURS), Mixer(COLOURS)
        for name in ("con1_1", "con1_2", "cross_1", "cross_2"):
            self.add_module(name, nn.Conv1d(cells, cells, 3, padding=1))

    def _rows(self, part: Tensor) -> Tensor:
        """(B, 3, H, W) to normalised rows (B, H W, 3), by a reshape that mixes channels with places."""
        return self.ln((part + self.convb(part)).reshape(len(part), -1, COLOURS))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to the same shape."""
        spectrum = torch.fft.fft2(x)
        first, second = self.model1(self._rows(spectrum.real)), self.model2(self._rows(spectrum.imag))
        share = first.softmax(dim=0)
        crossed = self.cross_1(share)
        attention = crossed * crossed.softmax(dim=0)
        real = self.con1_1(first) * share + attention
        imaginary = self.con1_2(second) * second.softmax(dim=0) + attention
        added = torch.complex(real.reshape(x.shape), imaginary.reshape(x.shape))
        return torch.fft.ifft2(spectrum + added).real


def identify(shapes: Shapes) -> Identification | None:
    """Recognise an FDV-Net state_dict."""
    if not has(shapes, "feats.0.convb.0.weight", "feats.0.cross_2.weight", "feats.0.model1.A_log"):
        return None
    side = round(shapes["feats.0.cross_2.weight"][0] ** 0.5)
    return Identification("fdv_net", arguments={"n_blocks": count(shapes, "feats."), "side": side})


@register(
    name="fdv_net",
    title="FDV-Net",
    task="restoration",
    spatial_dims=(2,),
    paper="arXiv:2402.06378",
    repository="github.com/zzr-idam/FDV-NET",
    licence="none stated",
    scan_order="raster",
    vectors={"FDVNet_1block": {"n_blocks": 1}},
    identify=identify,
)
class FDVNet(Float32Module):
    """FDV-Net; takes colour images (B, 3, H, W) of any size, from 0 to 1, and gives images of that size.

    It never gets two images at once in a run (`one_at_a_time`): in a batch each image changes the others. In float32 at
    any precision, as its spectra reach the image's size times its values.

    Parameters
    ----------
    n_blocks : int
        Blocks, each of 201 million weights.
    side : int
        Of the square that images are resized to and back.

    Examples
    --------
    >>> FDVNet(1, side=4)(torch.zeros(1, 3, 6, 8)).shape
    torch.Size([1, 3, 6, 8])
    """

    one_at_a_time = True

    def __init__(self, n_blocks: int = 8, *, side: int = 64) -> None:
        super().__init__()
        self.side = side
        self.feats = nn.Sequential(*[FrequencyBlock(side * side) for _ in range(n_blocks)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to the same shape; `InputError` for another number of channels."""
        if x.shape[1] != COLOURS:
            raise InputError(f"FDV-Net corrects colour images of three channels, not of {x.shape[1]}")
        with without_autocast(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            small = F.interpolate(wide, size=(self.side, self.side), mode="bilinear", align_corners=True)
            found = F.interpolate(self.feats(small), size=x.shape[2:], mode="bilinear", align_corners=True)
            return (found.sigmoid() + wide).to(x.dtype)
