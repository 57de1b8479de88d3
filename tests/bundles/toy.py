"""The smallest bundle there is: what its tests describe, save and load."""

from napari_mamba import bundles

ARGUMENTS = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 2,
    "features_per_stage": [4, 8],
    "kernel_sizes": 3,
    "strides": [1, 2],
    "n_conv_per_stage": 1,
    "n_conv_per_stage_decoder": 1,
    "input_size": [8, 8, 8],
}
SPEC = bundles.BundleSpec(
    name="toy",
    version="1.0",
    title="A toy",
    task="segmentation",
    network=bundles.Network("umamba_bot", ARGUMENTS),
    channels=(bundles.Channel("T1w", "MR"),),
    preparation=({"step": "normalise", "schemes": ["zscore"]},),
    tile=bundles.Tile((8, 8, 8), mirror_axes=(0, 2)),
    classes=(bundles.LabelClass(0, "background"), bundles.LabelClass(3, "thing", "#ff8000", "SCT:10200004")),
    references=("Ma et al., arXiv:2401.04722",),
    metrics={"dice": {"thing": 0.5}},
)
