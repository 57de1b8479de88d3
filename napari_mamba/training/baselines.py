"""Convolutional networks that a recipe trains beside its own, for comparison."""

from __future__ import annotations

from torch import nn


def small_resnet(channels: int, classes: int) -> nn.Module:
    """MONAI's 3D ResNet with one block a stage, 16 to 128 channels: about 0.9 million parameters.

    Takes (B, channels, Z, Y, X) and answers logits (B, classes). He et al., arXiv:1512.03385.
    """
    from monai.networks.nets import ResNet

    return ResNet(
        block="basic",
        layers=[1, 1, 1, 1],
        block_inplanes=[16, 32, 64, 128],
        spatial_dims=3,
        n_input_channels=channels,
        num_classes=classes,
        conv1_t_size=3,
        conv1_t_stride=2,
        no_max_pool=True,
    )
