"""What is fuzzed beside images and bundles: contours, doses, bags of features, films, tables and lists of cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mutations import mutated, mutated_json

Target = Callable[[np.random.Generator], object]


def _grid(values: np.ndarray):
    from napari_mamba.volume import Volume

    affine = np.diag([3.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]]
    return Volume(values, affine)


def _changed(seeds: list[tuple[Path, bytes]], use: Callable[[Path], object]) -> Target:
    def target(rng: np.random.Generator) -> object:
        path, content = seeds[rng.integers(len(seeds))]
        path.write_bytes(mutated(content, rng))
        return use(path)

    return target


def _same_each_time(path: Path) -> bytes:
    """A DICOM file's bytes, without the moment at which it was made and with identifiers in place of random ones."""
    import pydicom

    data = pydicom.dcmread(path)
    known: dict[str, str] = {}

    def tidy(_: object, element: pydicom.DataElement) -> None:
        if element.VR == "UI" and str(element.value).startswith("1.2.826.0.1.3680043.8.498."):
            element.value = known.setdefault(str(element.value), f"1.2.3.{len(known)}")
        elif element.VR in ("DA", "TM"):
            element.value = ""

    data.walk(tidy)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def rtstruct(folder: Path) -> Target:
    from napari_mamba.radiotherapy.dicom.rtstruct import read_structures, write_structures
    from napari_mamba.radiotherapy.structures import Structure, StructureSet

    image = _grid(np.zeros((1, 6, 12, 12), np.int16))
    mask = np.zeros(image.shape, bool)
    mask[1:5, 3:9, 2:8] = True
    drawn = StructureSet((Structure("PTV70", mask, "#ff0000", "PTV", 70.0), Structure("cord", mask)), image.affine)
    content = _same_each_time(write_structures(drawn, folder / "seed.dcm"))
    return _changed([(folder / "mutated.dcm", content)], lambda path: read_structures(path, image))


def rtdose(folder: Path) -> Target:
    from napari_mamba.radiotherapy.dicom.reference import without_series
    from napari_mamba.radiotherapy.dicom.rtdose import read_dose, write_dose

    dose = _grid(np.random.default_rng(0).random((1, 4, 5, 6)).astype(np.float32) * 70)
    content = _same_each_time(write_dose(dose, folder / "seed.dcm", without_series()))
    return _changed([(folder / "mutated.dcm", content)], lambda path: np.asarray(read_dose(path).data))


def bag(folder: Path) -> Target:
    import h5py
    import torch

    from napari_mamba.slides import files

    features = np.random.default_rng(0).random((9, 12)).astype(np.float32)
    with h5py.File(folder / "seed.h5", "w") as file:
        file.create_dataset("features", data=features, chunks=True, compression="gzip")
        file["coords"] = np.arange(18).reshape(9, 2) * 256
    np.save(folder / "seed.npy", features)
    torch.save({"features": torch.from_numpy(features)}, folder / "seed.pt")
    seeds = [(folder / f"mutated.{kind}", (folder / f"seed.{kind}").read_bytes()) for kind in ("h5", "npy", "pt")]
    return _changed(seeds, files.read)


def film(folder: Path) -> Target:
    import tifffile

    from napari_mamba.io.moving.opening import open_film

    frames = np.random.default_rng(0).integers(0, 255, (4, 6, 7)).astype(np.uint8)
    tifffile.imwrite(folder / "a.tif", frames, imagej=True, metadata={"axes": "TYX", "finterval": 0.04})
    tifffile.imwrite(folder / "b.tif", np.stack([frames] * 3, -1), photometric="rgb", metadata={"axes": "TYXS"})
    seeds = [(folder / f"mutated-{name}.tif", (folder / f"{name}.tif").read_bytes()) for name in "ab"]

    def use(path: Path) -> object:
        opened = open_film([path], "grey" if path.name == "mutated-b.tif" else None)
        return [np.asarray(opened.frame(t).data) for t in range(min(opened.count, 5))]

    return _changed(seeds, use)


def tables(folder: Path) -> Target:
    """Goals of a plan, cases of a cohort and of an adaptation, cases of the command."""
    from napari_mamba.cli.runs.cases import read_cases
    from napari_mamba.cohort.cases.csv_list import read_list
    from napari_mamba.radiotherapy.dvh.goals import read_goals
    from napari_mamba.training.adaptation.data.cases import find_cases

    (folder / "i.nii").write_bytes(b"")
    seeds: list[tuple[str, bytes, Callable[[Path], object]]] = [
        ("goals.csv", b"structure,measure,relation,limit\ncord,D0.1cc,<=,45\nPTV70,D99,>=,66.5\n", read_goals),
        ("list.csv", b"name;T1\nanna;i.nii\nbob;i.nii\n", lambda path: read_list(path, ("T1",))),
        ("pairs.csv", b"image,label,person\ni.nii,i.nii,anna\ni.nii,i.nii,bob\n", find_cases),
    ]
    cases = json.dumps(
        [{"inputs": ["i.nii"], "output": "o.nii.gz", "name": "a", "region": [0, 0, 0, 9, 9, 9], "frame": 1}]
    )

    def target(rng: np.random.Generator) -> object:
        number = int(rng.integers(len(seeds) + 1))
        if number == len(seeds):
            (folder / "cases.json").write_bytes(mutated_json(cases.encode(), rng))
            return read_cases(folder / "cases.json")
        name, content, use = seeds[number]
        (folder / name).write_bytes(mutated(content, rng))
        return use(folder / name)

    return target


DOORS: dict[str, Callable[[Path], Target]] = {
    "rtstruct": rtstruct,
    "rtdose": rtdose,
    "bag": bag,
    "film": film,
    "tables": tables,
}
