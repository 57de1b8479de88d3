"""Foreign checkpoints become bundles; none of them gets to run code."""

from __future__ import annotations

from napari_mamba.bundles.importers.dispatch import import_checkpoint
from napari_mamba.bundles.importers.monai.bundle import import_monai
from napari_mamba.bundles.importers.nnunet.v1 import import_nnunet_v1
from napari_mamba.bundles.importers.nnunet.v2 import import_nnunet
from napari_mamba.bundles.importers.plain import import_weights

__all__ = ["import_checkpoint", "import_monai", "import_nnunet", "import_nnunet_v1", "import_weights"]
