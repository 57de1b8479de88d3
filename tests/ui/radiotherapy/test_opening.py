"""RTSTRUCT, RTDOSE and a folder of them, as napari opens what is dropped."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
from napari.layers import Layer

from napari_mamba.ui.files.readers import get_reader, read_layers
from napari_mamba.ui.files.series_choice import SeriesChoice, describe, structure_sets
from napari_mamba.ui.radiotherapy import opening
from napari_mamba.ui.radiotherapy.layers import dose_of, frame_of, is_dose, structures_of
from napari_mamba.ui.radiotherapy.offers import whole_plan, with_sums


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


def test_structures_alone_open_on_a_grid_of_their_own_and_not_on_another_patient_s(viewer, export, tmp_path, made):
    viewer.add_image(np.zeros((5, 6, 7)), name="something else")
    alone = tmp_path / "alone" / "rs.dcm"
    alone.parent.mkdir()
    alone.write_bytes((export / "structures" / "rs.dcm").read_bytes())
    found = structures_of(opened(viewer, alone))
    assert found["PTV70"].mask.shape != (5, 6, 7)
    volume = found["PTV70"].mask.sum() * found.voxel
    assert volume == pytest.approx(made.structures["PTV70"].mask.sum() * made.structures.voxel, rel=0.03)


def test_a_dose_is_an_image_in_gray(viewer, export, made):
    (layer,) = opened(viewer, export / "dose" / "rd.dcm")
    assert is_dose(layer)
    assert layer.name == "rd"
    assert np.allclose(dose_of(layer).data, made.doses["A"].data, atol=1e-4)
    assert np.allclose(dose_of(layer).affine, made.ct.affine, atol=1e-4)


def test_a_folder_with_a_ct_and_its_structures_brings_both(viewer, export, made, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(export / "ct", folder)
    shutil.copy(export / "structures" / "rs.dcm", folder / "rs.dcm")
    kinds = [type(layer).__name__ for layer in opened(viewer, folder)]
    assert kinds[0] == "Image"
    assert set(kinds[1:]) == {"Labels"}


def test_the_dialog_offers_all_that_an_export_holds(viewer, export, made):
    from napari_mamba import io

    offered = [*io.list_series(export), *structure_sets(export)]
    assert [offered[number].modality for number in whole_plan(offered)] == ["CT", "RTDOSE", "RTSTRUCT"]
    ct = next(entry for entry in offered if entry.modality == "CT")
    assert whole_plan([*offered, ct]) == whole_plan([ct]) == []  # not clear which one, and no plan
    choice = SeriesChoice(offered)
    kinds = [entry.modality for entry in choice.entries]
    assert sorted(kinds) == ["CT", "RTDOSE", "RTSTRUCT"]
    assert describe(choice.entries[kinds.index("RTSTRUCT")]) == "contours of structures"
    choice.choose([kinds.index("RTDOSE")])
    ((data, *_),) = choice.read()
    assert np.max(data) == pytest.approx(made.doses["A"].data.max(), rel=1e-5)
    assert opening.MODALITIES == ("RTDOSE", "RTSTRUCT")
    choice.choose([kinds.index("RTSTRUCT")])
    assert {kind for *_, kind in choice.read()} == {"labels"}


def test_a_folder_with_a_dose_alone_opens_as_its_file_does(viewer, export, made):
    (layer,) = opened(viewer, export / "dose")
    assert is_dose(layer)
    assert frame_of(layer) != ""


@pytest.mark.parametrize("one_series", [False, True])
def test_the_doses_of_beams_are_offered_each_and_summed(export, made, tmp_path, one_series):
    from napari_mamba import io

    for number, share in enumerate((0.25, 0.75), 1):
        dataset = pydicom.dcmread(export / "dose" / "rd.dcm")
        dataset.DoseSummationType, dataset.DoseGridScaling = "BEAM", float(dataset.DoseGridScaling) * share
        (plan,) = dataset.ReferencedRTPlanSequence
        plan.ReferencedFractionGroupSequence = [_item(ReferencedBeamSequence=[_item(ReferencedBeamNumber=number)])]
        uid = dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
        dataset.SeriesInstanceUID = "1.3" if one_series else f"{uid}.1"
        dataset.save_as(tmp_path / f"beam{number}.dcm")
    offered = with_sums(io.list_series(tmp_path))
    assert [len(entry.paths) for entry in offered] == [2, 1, 1]
    choice = SeriesChoice(offered)  # the sum is what is chosen at first
    ((values, keywords, _),) = choice.read()
    assert keywords["name"] == "sum of 2 doses"
    np.testing.assert_allclose(values, made.doses["A"].data[0], atol=1e-3)
    choice.choose([1, 2])
    assert sum(float(np.max(data)) for data, *_ in choice.read()) == pytest.approx(float(values.max()), rel=1e-5)
    shutil.copy(export / "dose" / "rd.dcm", tmp_path)  # the plan's own dose: nothing is to be summed
    assert [len(entry.paths) for entry in with_sums(io.list_series(tmp_path))] == [1, 1, 1]


def _item(**values):
    item = pydicom.Dataset()
    for key, value in values.items():
        setattr(item, key, value)
    return item


def test_a_segmentation_whose_segments_overlap_opens_with_all_of_them_whole(viewer, export, made, tmp_path):
    hd = pytest.importorskip("highdicom")
    from pydicom.sr.coding import Code

    slices = [pydicom.dcmread(file) for file in sorted((export / "ct").iterdir())]
    kind, manual = Code("123037004", "SCT", "Anatomical Structure"), hd.seg.SegmentAlgorithmTypeValues.MANUAL
    names = ("Body", "PTV70", "spinal cord")
    named = [
        hd.seg.SegmentDescription(number, name, kind, Code("2748008", "SCT", name), manual)
        for number, name in enumerate(names, 1)
    ]
    pixels = np.stack([made.structures[name].mask for name in names], -1).astype(np.uint8)
    seg = hd.seg.Segmentation(slices, pixels, "BINARY", named, hd.UID(), 9, hd.UID(), 1, "m", "m", "1", "0")
    seg.save_as(tmp_path / "seg.dcm")
    found = structures_of(opened(viewer, tmp_path / "seg.dcm"))
    assert sorted(one.name for one in found) == sorted(names)
    for one in found:
        assert one.mask.sum() == made.structures[one.name].mask.sum()
    assert (found["spinal cord"].code, found["PTV70"].prescription) == ("2748008", 70.0)
