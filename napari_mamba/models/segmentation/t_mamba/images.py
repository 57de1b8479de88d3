"""T-Mamba for images: as in three dimensions, but small magnitudes of the spectrum are kept at every level.

Hao et al., arXiv:2404.01065; read in github.com/isbrycee/T-Mamba, `lib/models/TMamba2D.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.t_mamba.network import KERNELS, NOTE, SEED, UNTOLD, TMamba, Widths
from napari_mamba.models.shapes import count, has

EXPANSION, GATED, TAPS = 2, 128, 5
"""Inner channels of a mixer, numbers that the gate network makes of each channel, taps of `fft_conv`."""


def widths(stem: int, units: tuple[int, ...], growth: tuple[int, ...], skips: tuple[int, ...]) -> Widths:
    """A size of the two-dimensional network."""
    return Widths(2, "Tim_Block", stem, growth, units, skips, by_level=False)


VERSIONS = {
    "TINY": widths(24, (5, 10, 10), (4, 8, 16), (12, 24, 24)),
    "SMALL": widths(48, (5, 10, 10), (4, 8, 16), (24, 48, 48)),
    "WIDER": widths(36, (5, 10, 10), (6, 12, 24), (12, 24, 24)),
    "BASE": widths(36, (8, 16, 16), (6, 12, 24), (12, 24, 24)),
    "LARGE": widths(48, (12, 24, 36), (8, 16, 32), (24, 48, 48)),
}


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a two-dimensional T-Mamba by its Fourier branches."""
    first = "dfs_blocks.0.downsample.conv.3.weight"
    mixer = "dfs_blocks.0.dfs.Tim_Block.0.mixer."
    if not has(shapes, f"{mixer}gate_mapping.weight", f"{mixer}fft_conv.weight", first, "out_conv.conv.3.weight"):
        return None
    stem, channels = shapes[first][:2]
    units = tuple(count(shapes, f"dfs_blocks.{level}.dfs.units.") for level in range(3))
    growth = shapes["dfs_blocks.0.dfs.Tim_Block.0.norm.weight"][0]
    versions = (name for name, one in VERSIONS.items() if (one.stem, one.units, one.growth[0]) == (stem, units, growth))
    return Identification(
        "t_mamba_2d",
        arguments={
            "in_channels": channels,
            "classes": shapes["out_conv.conv.3.weight"][0],
            "scaling_version": next(versions, "TINY"),
        },
        ambiguous=UNTOLD,
        note=NOTE.format(size="resize_shape"),
    )


@register(
    name="t_mamba_2d",
    title="T-Mamba (2D)",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2404.01065",
    repository="github.com/isbrycee/T-Mamba",
    licence="MIT",
    scan_order="bidirectional",
    vectors={"TMamba2D_TINY": {"in_channels": 3, "classes": 2, "input_size": (64, 96)}},
    identify=identify,
)
class TMamba2D(TMamba):
    """T-Mamba for images of one size; see `TMamba`.

    The seed's stream is the one of the authors' programs: their mixers are built on the GPU, so that only the
    convolutions, `fft_conv` and `gate_mapping` draw of the CPU's before the tables do.

    Parameters
    ----------
    in_channels, classes : int
        Channels in; logits out.
    scaling_version : {"TINY", "SMALL", "WIDER", "BASE", "LARGE"}
        The sizes of the levels.
    input_size : (int, int)
        The image's sides, multiples of 8.
    high_freq, low_freq : float
        Thresholds of the spectrum's magnitude; only the low one is used.
    seed : int
        What the authors' programs seed PyTorch with just before they build the network.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 1,
        scaling_version: str = "TINY",
        input_size: Sequence[int] = (640, 1280),
        high_freq: float = 0.9,
        low_freq: float = 0.1,
        seed: int = SEED,
    ) -> None:
        if scaling_version not in VERSIONS:
            raise InputError(f"scaling_version must be one of {', '.join(VERSIONS)}, not {scaling_version!r}")
        super().__init__(VERSIONS[scaling_version], in_channels, classes, input_size, high_freq, low_freq, seed)

    def _draw_first(self, widths: Widths, in_channels: int, classes: int) -> None:
        channels = in_channels
        for level in range(3):
            growth = widths.growth[level]
            nn.Conv2d(channels, widths.stem, KERNELS[level])
            for unit in range(widths.units[level]):
                nn.Conv2d(widths.stem + unit * growth, growth, 3)
                nn.Conv1d(2 * EXPANSION * growth, 2 * EXPANSION * growth, TAPS)
                nn.Linear(GATED * growth, 3)
            channels = widths.channels(level)
            nn.Conv2d(channels, widths.skips[level], 3)
        nn.Conv2d(sum(widths.skips), classes, 3)
