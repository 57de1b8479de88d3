"""The smallest bundle that the engine runs: for tests, and for programs that they start."""

from pathlib import Path


def make_tiny_bundle(folder: Path, channels: tuple[str, ...]) -> Path:
    import torch

    from napari_mamba import bundles, models

    arguments = {
        "spatial_dims": 3,
        "input_channels": len(channels),
        "num_classes": 3,
        "features_per_stage": [4, 8],
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "input_size": [16, 16, 16],
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        weights = models.create("umamba_enc", **arguments).state_dict()
    spec = bundles.BundleSpec(
        name=folder.name,
        version="1.0.0",
        title="A network for tests",
        task="segmentation",
        network=bundles.Network("umamba_enc", arguments),
        channels=tuple(bundles.Channel(name, "MR") for name in channels),
        preparation=(
            {"step": "orient", "axcodes": "RAS"},
            {"step": "normalise", "schemes": ["zscore"] * len(channels)},
        ),
        tile=bundles.Tile((16, 16, 16), overlap=0.5, mirror_axes=(0,), divisor=(2, 2, 2)),
        classes=(
            bundles.LabelClass(0, "background"),
            bundles.LabelClass(1, "anterior", "#e4a63a"),
            bundles.LabelClass(2, "posterior", "#3a8fd9"),
        ),
    )
    return bundles.save(folder, spec, [weights], "# tiny\n\nFor tests.\n")
