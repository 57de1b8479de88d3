"""Doses, CTs and structures from files of every kind, and those that are not what they should be."""

import numpy as np
import pytest

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.io.common.geometry import LPS_TO_RAS
from napari_mamba.io.common.source import LabelEntry
from napari_mamba.radiotherapy import sources
from napari_mamba.radiotherapy.dicom.reference import read_reference, without_series
from napari_mamba.radiotherapy.dicom.rtdose import write_dose
from napari_mamba.radiotherapy.dicom.rtstruct import write_structures
from napari_mamba.volume import Volume


@pytest.fixture
def dose(image):
    values = np.linspace(0, 70, image.data.size, dtype=np.float32).reshape(image.data.shape)
    return image.with_data(values)


@pytest.fixture
def labels(anatomy, image):
    values = anatomy["PTV70"].mask + 2 * (anatomy["Spinal Cord"].mask & ~anatomy["PTV70"].mask)
    return image.with_data(values[np.newaxis].astype(np.uint8))


def test_a_dose_of_each_kind(tmp_path, dose):
    files = [write_dose(dose, tmp_path / "d.dcm"), io.write(dose, tmp_path / "d.nii.gz")]
    files.append(io.write(dose.with_data(100 * dose.data), tmp_path / "c.nii.gz"))
    for file, unit in zip(files, ("Gy", "Gy", "cGy"), strict=True):
        np.testing.assert_allclose(sources.dose(file, unit=unit).data, dose.data, atol=1e-3)


def test_centigray_taken_for_gray(tmp_path, dose):
    path = io.write(dose.with_data(100 * dose.data), tmp_path / "c.nii.gz")
    with pytest.raises(InputError, match=r"c\.nii\.gz: .*cGy"):
        sources.dose(path)
    with pytest.raises(InputError, match="not in 'rad'"):
        sources.dose(path, unit="rad")


def test_structures_of_each_kind(tmp_path, image, anatomy, labels):
    (tmp_path / "masks").mkdir()
    for structure in anatomy:
        mask = image.with_data(structure.mask[np.newaxis].astype(np.uint8))
        io.write(mask, tmp_path / "masks" / f"{structure.name.replace(' ', '_')}.nii.gz")
    found = sources.structures(write_structures(anatomy, tmp_path / "s.dcm"), image)
    np.testing.assert_array_equal(found["PTV70"].mask, anatomy["PTV70"].mask)
    found = sources.structures(tmp_path / "masks", image)
    assert sorted(s.name for s in found) == ["Larynx", "PTV70", "Spinal Cord"]
    path = io.write(labels, tmp_path / "l.nii.gz")
    found = sources.structures(path, image, names=sources.names_of("1=PTV70, 2: spinal cord"))
    np.testing.assert_array_equal(found["PTV70"].mask, anatomy["PTV70"].mask)
    assert [s.name for s in sources.structures(path, image)] == ["label 1", "label 2"]
    classes = [LabelEntry(1, "PTV70", "#ff0000"), LabelEntry(2, "spinal cord", "#00ff00")]
    found = sources.structures(io.write(labels, tmp_path / "l.seg.nrrd", classes=classes), image)
    assert [(s.name, s.color, s.prescription) for s in found] == [
        ("PTV70", "#ff0000", 70.0),
        ("spinal cord", "#00ff00", None),
    ]


def test_segments_that_overlap_stay_whole(tmp_path, image, anatomy):
    names, masks = (
        ("PTV70", "Spinal Cord"),
        [anatomy["PTV70"].mask, anatomy["PTV70"].mask | anatomy["Spinal Cord"].mask],
    )
    step = LPS_TO_RAS @ image.affine
    vectors = " ".join(f"({','.join(map(repr, map(float, step[:3, axis])))})" for axis in (2, 1, 0))
    lines = [
        "NRRD0005", "type: uchar", "dimension: 4", f"sizes: 2 {' '.join(map(str, image.shape[::-1]))}", "encoding: raw",
        "space: LPS", f"space directions: none {vectors}", "kinds: list domain domain domain",
        f"space origin: ({','.join(map(repr, map(float, step[:3, 3])))})",
    ]  # fmt: skip
    for number, name in enumerate(names):
        lines += [f"Segment{number}_Name:={name}", f"Segment{number}_LabelValue:=1", f"Segment{number}_Layer:={number}"]
    path = tmp_path / "a.seg.nrrd"
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + np.stack(masks, -1).astype(np.uint8).tobytes())
    found = sources.structures(path, image)
    assert tuple(one.name for one in found) == names
    for one, mask in zip(found, masks, strict=True):
        np.testing.assert_array_equal(one.mask, mask)


def test_labels_of_other_axes_or_of_a_part_are_placed(tmp_path, image, labels):
    values = np.asarray(labels.data)
    used = np.flatnonzero(values.any((0, 2, 3)))
    first, last = int(used[0]), int(used[-1]) + 1
    part = labels.affine.copy()
    part[:3, 3] += first * part[:3, 0]
    turned = part.copy()
    turned[:3, 3] += turned[:3, 2] * (image.shape[2] - 1)
    turned[:3, 2] *= -1
    path = io.write(Volume(values[:, first:last, :, ::-1], turned), tmp_path / "l.nii.gz")
    found = sources.structures(path, image, names={1: "PTV70", 2: "cord"})
    np.testing.assert_array_equal(found["PTV70"].mask, values[0] == 1)
    small = Volume(image.data[:, : last - 1], image.affine)
    with pytest.raises(InputError, match="reaches beyond"):
        sources.structures(path, small)


def test_labels_on_another_grid(tmp_path, image, labels):
    moved = labels.affine.copy()
    moved[0, 3] += 3
    path = io.write(Volume(labels.data, moved), tmp_path / "l.nii.gz")
    with pytest.raises(InputError, match="grid"):
        sources.structures(path, image)


@pytest.mark.parametrize(("change", "says"), [(lambda v: v * 0, "labels nothing"), (lambda v: v * 0.5, "no label map")])
def test_labels_that_are_none(tmp_path, image, labels, change, says):
    path = io.write(labels.with_data(change(np.asarray(labels.data, np.float32))), tmp_path / "l.nii.gz")
    with pytest.raises(InputError, match=says):
        sources.structures(path, image)


def test_an_empty_folder(tmp_path, image):
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="no masks"):
        sources.structures(tmp_path / "masks", image)


@pytest.mark.parametrize("text", ["brainstem", "a=b", "1="])
def test_names_that_are_none(text):
    with pytest.raises(InputError, match="names no label"):
        sources.names_of(text)


def test_a_ct_is_told_from_an_mr(tmp_path, image, ct_folder):
    hu = np.where(np.arange(image.data.size) % 3, -1000, 700).reshape(image.data.shape).astype(np.int16)
    ct = io.write(image.with_data(hu), tmp_path / "ct.nii.gz")
    volume, reference = sources.planning_ct(ct)
    assert (volume.shape, reference) == (image.shape, None)
    mr = io.write(image.with_data(abs(hu)), tmp_path / "mr.nii.gz")
    with pytest.raises(InputError, match="Hounsfield"):
        sources.planning_ct(mr)


def test_a_series_of_another_modality(ct_folder):
    import pydicom

    for file in ct_folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.Modality = "MR"
        dataset.save_as(file)
    with pytest.raises(InputError, match="series of 'MR'"):
        sources.planning_ct(ct_folder)


def test_half_a_series(ct_folder):
    for file in sorted(ct_folder.iterdir())[10:12]:
        file.unlink()
    with pytest.raises(InputError, match="misses slices"):
        sources.planning_ct(ct_folder)


def test_the_first_half_of_a_series_is_told_by_its_contours(ct_folder, image, anatomy, tmp_path):
    whole = read_reference(ct_folder)
    drawn = write_structures(anatomy, tmp_path / "s.dcm", whole)
    assert len(sources.structures(drawn, image, reference=whole)) == len(anatomy)
    for file in sorted(ct_folder.iterdir())[image.shape[0] // 2 :]:
        file.unlink()
    with pytest.raises(InputError, match="are missing: copy the whole series"):
        sources.structures_of([drawn], image, reference=read_reference(ct_folder))


def test_organs_and_targets_in_two_files(tmp_path, image, anatomy, labels):
    drawn = write_structures(anatomy, tmp_path / "s.dcm")
    same = io.write(labels, tmp_path / "l.nii.gz")
    found = sources.structures_of([same, drawn], image, names={1: "PTV70", 2: "cord"})
    assert [one.name for one in found] == ["PTV70", "cord", "Spinal Cord", "Larynx"]
    with pytest.raises(InputError, match="two files disagree about 'Spinal Cord'"):
        sources.structures_of([drawn, same], image, names={1: "Spinal Cord", 2: "other"})


def test_a_dose_in_another_frame_of_reference(tmp_path, dose):
    path = write_dose(dose, tmp_path / "d.dcm", without_series("1.2.3"))
    assert sources.dose(path, frame="1.2.3").shape == dose.shape
    with pytest.raises(InputError, match="another frame of reference"):
        sources.dose(path, frame="1.2.4")


def test_a_dose_and_structures_that_changed_places(tmp_path, image, dose, anatomy):
    with pytest.raises(InputError, match="holds structures and no dose"):
        sources.dose(write_structures(anatomy, tmp_path / "s.dcm"))
    with pytest.raises(InputError, match="holds a dose and no structures"):
        sources.structures(write_dose(dose, tmp_path / "d.dcm"), image)


@pytest.mark.parametrize(
    ("summed", "says"), [("FRACTION", "one fraction group,"), ("FRACTION_SESSION", "one fraction,"), ("BEAM", "beams,")]
)
def test_the_dose_of_a_part_is_said_to_be_one(tmp_path, dose, summed, says):
    _, told = sources.told_dose(write_dose(dose, tmp_path / "f.dcm", summed=summed))
    assert [says in note for note in told] == [True]
    assert sources.told_dose(write_dose(dose, tmp_path / "d.dcm"))[1] == ()
    assert sources.told_dose(io.write(dose, tmp_path / "d.nii.gz"))[1] == ()


def test_the_one_rtstruct_of_a_folder(tmp_path, image, dose, anatomy):
    write_structures(anatomy, tmp_path / "s.dcm")
    write_dose(dose, tmp_path / "d.dcm")
    assert len(sources.structures(tmp_path, image)) == 3
    write_structures(anatomy, tmp_path / "t.dcm")
    with pytest.raises(InputError, match="2 RTSTRUCT files"):
        sources.structures(tmp_path, image)


def test_the_ct_of_a_folder_that_holds_the_whole_plan(tmp_path, image, dose, anatomy, ct_folder):
    import pydicom

    reference = read_reference(ct_folder)
    write_structures(anatomy, ct_folder / "s.dcm", reference)
    write_dose(dose, ct_folder / "d.dcm", reference)
    assert sources.planning_image(ct_folder).shape == image.shape
    assert len(sources.structures(ct_folder, image, reference=reference)) == 3
    for file in sorted(ct_folder.glob("0*.dcm")):  # a second CT of the patient
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID += ".1"
        dataset.SOPInstanceUID += ".1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(ct_folder / f"second{file.name}")
    found = sources.planning_image(ct_folder, [ct_folder])
    assert sources.series_of(io.series_files(found.header)).series == reference.series
    with pytest.raises(InputError, match="2 series of CT"):
        sources.planning_image(ct_folder)


@pytest.mark.parametrize("places", [("", "", "ct"), ("rs", "rd", "ct"), ("a/b", "a/b", "a/c")])
def test_one_folder_is_enough_however_an_export_is_laid_out(tmp_path, image, dose, anatomy, ct_folder, places):
    plan = tmp_path / "patient"
    for place in places:
        (plan / place).mkdir(parents=True, exist_ok=True)
    reference = read_reference(ct_folder)
    write_structures(anatomy, plan / places[0] / "s.dcm", reference)
    write_dose(dose, plan / places[1] / "d.dcm", reference)
    for file in ct_folder.iterdir():
        file.rename(plan / places[2] / file.name)
    ct = sources.planning_image(plan, [plan])
    assert sources.series_of(io.series_files(ct.header)).series == reference.series
    assert len(sources.structures(plan, ct, reference=reference)) == 3
    found, _ = sources.told_dose(plan, frame=reference.frame)
    np.testing.assert_allclose(found.data, dose.data, atol=1e-4)


def test_files_without_a_preamble(tmp_path, image, dose, anatomy):
    import pydicom

    for path in (write_structures(anatomy, tmp_path / "s.dcm"), write_dose(dose, tmp_path / "d.dcm")):
        dataset = pydicom.dcmread(path)
        bare = pydicom.Dataset(dataset)
        bare.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    assert len(sources.structures(tmp_path / "s.dcm", image)) == 3
    np.testing.assert_allclose(sources.dose(tmp_path / "d.dcm").data, dose.data, atol=1e-4)
    (tmp_path / "text.dcm").write_text("nothing of the kind " * 20)
    assert sources.modality(tmp_path / "text.dcm") == ""
    with pytest.raises(InputError):
        sources.dose(tmp_path / "text.dcm")
