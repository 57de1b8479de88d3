"""T-Mamba for volumes (Hao et al., arXiv:2404.01065).

Read in github.com/isbrycee/T-Mamba, `lib/models/TMamba3D.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.t_mamba.network import NOTE, SEED, UNTOLD, TMamba, Widths
from napari_mamba.models.shapes import has


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a three-dimensional T-Mamba state_dict by its Fourier branches."""
    mixer = "dfs_blocks.0.dfs.Vim_Block.0.mixer."
    first = "dfs_blocks.0.downsample.conv.3.weight"
    if not has(shapes, f"{mixer}gate_mapping.weight", f"{mixer}fft_conv.weight", first, "out_conv.conv.3.weight"):
        return None
    if len(shapes[first]) != 5:
        return None
    return Identification(
        "t_mamba_3d",
        arguments={"in_channels": shapes[first][1], "classes": shapes["out_conv.conv.3.weight"][0]},
        ambiguous=UNTOLD,
        note=NOTE.format(size="crop_size"),
    )


@register(
    name="t_mamba_3d",
    title="T-Mamba (3D)",
    task="segmentation",
    spatial_dims=(3,),
    paper="arXiv:2404.01065",
    repository="github.com/isbrycee/T-Mamba",
    licence="MIT",
    scan_order="bidirectional",
    vectors={"TMamba3D": {"classes": 2, "input_size": (32, 24, 40)}},
    identify=identify,
)
class TMamba3D(TMamba):
    """T-Mamba for volumes of one size; see `TMamba`.

    Parameters
    ----------
    in_channels, classes : int
        Channels in; logits out.
    input_size : (int, int, int)
        The volume's sides, multiples of 8.
    high_freq, low_freq : float
        Thresholds of the spectrum's magnitude.
    seed : int
        What the authors' programs seed PyTorch with just before they build the network.

    Examples
    --------
    >>> TMamba3D(1, 2, input_size=(16, 8, 16))(torch.zeros(2, 1, 16, 8, 16)).shape
    torch.Size([2, 2, 16, 8, 16])
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 1,
        input_size: Sequence[int] = (160, 160, 96),
        high_freq: float = 0.9,
        low_freq: float = 0.1,
        seed: int = SEED,
    ) -> None:
        super().__init__(Widths(), in_channels, classes, input_size, high_freq, low_freq, seed)
