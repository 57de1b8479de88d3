"""nnU-Net imports every module of the folder in `nnUNet_extTrainer` and asks each for a trainer's name.

    export nnUNet_extTrainer=$(napari-mamba train --trainers)
    nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainer_umamba_bot

Names are `nnUNetTrainer_NETWORK` and `nnUNetTrainer_NETWORK_MIXER`; `napari-mamba train --list` has the networks.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    from napari_mamba.training.nnunet.networks import parse_trainer

    if parse_trainer(name) is None:
        raise AttributeError(name)
    from napari_mamba.training.nnunet.child.trainer import trainer_class

    return trainer_class(name)
