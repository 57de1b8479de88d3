"""nnU-Net v2 plans, preprocesses, augments and folds; the networks trained are this package's.

Isensee et al., nnU-Net, Nature Methods 18:203-211, 2021; github.com/MIC-DKFZ/nnUNet, version 2.8. Needs the extra
`napari-mamba[nnunet]`; only `child/trainer.py` and `child/worker.py`, which run in processes of their own, import it.

`networks` says what of a plan each network takes, `child/trainer` makes nnU-Net's trainers of that, and the folder
`trainers` is what nnU-Net's variable `nnUNet_extTrainer` is set to. `data`, `checks` and `folds` are about the images,
`raw` lays them out as nnU-Net reads them, `child/process` runs nnU-Net, `scores` and `results` measure and write,
`guide` does it all.
"""
