"""RTSTRUCT, RTDOSE and a folder of them, as napari opens what is dropped."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Layer

from napari_mamba.ui.files.readers import get_reader, read_layers
from napari_mamba.ui.files.series_choice import SeriesChoice, describe, structure_sets
from napari_mamba.ui.radiotherapy import opening
from napari_mamba.ui.radiotherapy.layers import dose_of, frame_of, is_dose, structures_of


def opened(viewer, path):
    reader = get_reader(str(path))
    assert reader is read_layers
    return [viewer.add_layer(Layer.create(*data)) for data in reader(str(path))]


def test_structures_lie_on_the_ct_that_is_open(viewer, export, made):
    (ct,) = opened(viewer, export / "ct")
    layers = opened(viewer, export / "structures" / "rs.dcm")
    assert all(type(layer).__name__ == "Labels" for layer in layers)
    assert [layer.visible for layer in layers] == [False, *[True] * (len(layers) - 1)]  # the outline covers all
    found = structures_of(layers)
    for one in made.structures:
        apart = (found[one.name].mask ^ one.mask).sum()
        assert apart <= 0.002 * one.mask.sum(), one.name
    assert layers[0].data.shape == ct.data.shape
    assert frame_of(layers[0]) == frame_of(ct) != ""


def test_structures_without_their_ct_open_find_it_beside_them(viewer, export, made):
    found = structures_of(opened(viewer, export / "structures" / "rs.dcm"))
    assert found["PTV70"].mask.shape == made.ct.shape


def test_structures_alone_open_on_a_grid_of_their_own(viewer, export, tmp_path, made):
    alone = tmp_path / "alone" / "rs.dcm"
    alone.parent.mkdir()
    alone.write_bytes((export / "structures" / "rs.dcm").read_bytes())
    found = structures_of(opened(viewer, alone))
    volume = found["PTV70"].mask.sum() * found.voxel
    assert volume == pytest.approx(made.structures["PTV70"].mask.sum() * made.structures.voxel, rel=0.03)


def test_an_open_image_of_another_patient_is_not_their_grid(viewer, export, tmp_path, made):
    viewer.add_image(np.zeros((5, 6, 7)), name="something else")
    alone = tmp_path / "alone" / "rs.dcm"
    alone.parent.mkdir()
    alone.write_bytes((export / "structures" / "rs.dcm").read_bytes())
    assert opened(viewer, alone)[0].data.shape != (5, 6, 7)


def test_a_dose_is_an_image_in_gray(viewer, export, made):
    (layer,) = opened(viewer, export / "dose" / "rd.dcm")
    assert is_dose(layer)
    assert layer.name == "rd"
    assert np.allclose(dose_of(layer).data, made.doses["A"].data, atol=1e-4)
    assert np.allclose(dose_of(layer).affine, made.ct.affine, atol=1e-4)


def test_a_folder_with_a_ct_and_its_structures_brings_both(viewer, export, made, tmp_path):
    import shutil

    folder = tmp_path / "both"
    shutil.copytree(export / "ct", folder)
    shutil.copy(export / "structures" / "rs.dcm", folder / "rs.dcm")
    kinds = [type(layer).__name__ for layer in opened(viewer, folder)]
    assert kinds[0] == "Image"
    assert set(kinds[1:]) == {"Labels"}


def test_the_dialog_offers_all_that_an_export_holds(viewer, export, made):
    from napari_mamba import io

    choice = SeriesChoice([*io.list_series(export), *structure_sets(export)])
    kinds = [entry.modality for entry in choice.entries]
    assert sorted(kinds) == ["CT", "RTDOSE", "RTSTRUCT"]
    assert describe(choice.entries[kinds.index("RTSTRUCT")]) == "contours of structures"
    choice.choose([kinds.index("RTDOSE")])
    ((data, *_),) = choice.read()
    assert np.max(data) == pytest.approx(made.doses["A"].data.max(), rel=1e-5)
    assert opening.MODALITIES == ("RTDOSE", "RTSTRUCT")
    choice.choose([kinds.index("RTSTRUCT")])
    assert {kind for *_, kind in choice.read()} == {"labels"}
