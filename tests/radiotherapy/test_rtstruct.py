"""RTSTRUCT: masks to contours and back, on slices, oblique to them, with holes; and files that are refused."""

import numpy as np
import pydicom
import pytest
from planning_grids import CENTRE, SPACING, affine, shape_mask
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.dicom.contours import outlines, rasterised
from napari_mamba.radiotherapy.dicom.filling import filled
from napari_mamba.radiotherapy.dicom.reference import read_reference
from napari_mamba.radiotherapy.dicom.rtstruct import read_structures, write_structures
from napari_mamba.radiotherapy.structures import Structure, StructureSet
from napari_mamba.volume import Volume


def hausdorff95(first: np.ndarray, second: np.ndarray, affine: np.ndarray) -> float:
    """95% of the points of each mask's surface are nearer than this to the other's surface, mm."""
    surfaces = [(marching_cubes(np.pad(m, 1).astype(float), 0.5)[0] - 1) @ affine[:3, :3].T for m in (first, second)]
    one, other = (cKDTree(surface) for surface in surfaces)
    return max(float(np.percentile(a.query(b.data)[0], 95)) for a, b in ((one, other), (other, one)))


def test_masks_come_back_voxel_by_voxel(tmp_path, image, anatomy):
    read = read_structures(write_structures(anatomy, tmp_path / "s.dcm"), image)
    assert [s.name for s in read] == ["PTV70", "Spinal Cord", "Larynx"]
    for before, after in zip(anatomy, read, strict=True):
        np.testing.assert_array_equal(before.mask, after.mask)
        assert (before.color, before.kind) == (after.color, after.kind)
    assert read["PTV70"].prescription == 70


@pytest.mark.parametrize("angles", [(25, 0, 0), (-12, 30, 18)])
def test_on_a_grid_oblique_to_the_contours_within_half_a_voxel(tmp_path, image, anatomy, angles):
    spacing = (2.0, 1.3, 1.3)
    turned, shape = affine(angles, spacing), (40, 44, 44)
    turned[:3, 3] = CENTRE - turned[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = Volume(np.zeros((1, *shape)), turned)
    read = read_structures(write_structures(anatomy, tmp_path / "s.dcm"), grid)["PTV70"].mask
    true = shape_mask(turned, shape)
    assert 2 * (read & true).sum() / (read.sum() + true.sum()) > 0.9  # the hole and the island are there
    assert hausdorff95(read, true, turned) <= SPACING[0] / 2


def test_contours_on_every_other_slice_fill_those_between(image, anatomy):
    mask = anatomy["Spinal Cord"].mask
    sparse = [line for n, line in enumerate(outlines(mask, image.affine)) if n % 2 == 0]
    back = rasterised(sparse, image.affine, image.shape)
    np.testing.assert_array_equal(back[1:-1], mask[1:-1])


def test_a_gap_in_a_structure_stays(image, anatomy):
    mask = anatomy["Spinal Cord"].mask.copy()
    mask[10:14] = False
    np.testing.assert_array_equal(rasterised(outlines(mask, image.affine), image.affine, image.shape), mask)


def test_a_keyhole_to_a_hole_is_filled_as_two_contours_are():
    outer = np.array([[0, 0], [0, 9], [9, 9], [9, 0]]) + 0.5
    inner = np.array([[3, 3], [3, 6], [6, 6], [6, 3]]) + 0.5
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    apart = filled([outer, inner], (11, 11))
    assert int(apart.sum()) == 81 - 9
    np.testing.assert_array_equal(filled([keyhole], (11, 11)), apart)


def test_filling_agrees_with_another_program():
    from skimage.draw import polygon2mask

    random = np.random.default_rng(3)
    angle = np.sort(random.uniform(0, 2 * np.pi, 25))
    star = np.stack([np.sin(angle), np.cos(angle)], 1) * random.uniform(5, 19, (25, 1)) + 20.123
    np.testing.assert_array_equal(filled([star], (40, 40)), polygon2mask((40, 40), star))


def test_the_file_names_its_patient_and_slices_and_holes_lie_inside(tmp_path, ct_folder, anatomy):
    reference = read_reference(ct_folder)
    dataset = pydicom.dcmread(write_structures(anatomy, tmp_path / "s.dcm", reference))
    assert (str(dataset.PatientID), str(dataset.PatientName)) == ("7", "Doe^Jane")
    slices = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, sorted(ct_folder.iterdir()))}
    assert dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID == reference.frame
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        on = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        normal = np.cross(*np.array(on.ImageOrientationPatient, float).reshape(2, 3))
        assert np.abs((points - np.array(on.ImagePositionPatient, float)) @ normal).max() < 1e-3
        assert contour.NumberOfContourPoints == len(points)


@pytest.mark.parametrize("image", [(0, 0, 0)], indirect=True)
def test_kinds_and_codes_come_back(tmp_path, image, anatomy):
    mask = anatomy["PTV70"].mask
    named = [Structure(name, mask) for name in ("CTV 60", "GTVp", "PTV70", "Body", "Ring PTV70")]
    given = StructureSet((*named, Structure("Struct 1", mask, code="119238007")), image.affine)
    read = read_structures(write_structures(given, tmp_path / "s.dcm"), image)
    assert [one.kind for one in read] == ["CTV", "GTV", "PTV", "EXTERNAL", "ORGAN", "ORGAN"]
    assert [one.code for one in read] == ["", "", "", "", "", "119238007"]


def test_the_real_reader_s_ct_and_the_structures_meet(tmp_path, ct_folder, anatomy):
    ct = io.read(ct_folder)
    reference = read_reference(ct_folder)
    read = read_structures(write_structures(anatomy, tmp_path / "s.dcm", reference), ct, frame=reference.frame)
    true = shape_mask(ct.affine, ct.shape)
    assert hausdorff95(read["PTV70"].mask, true, ct.affine) <= min(ct.spacing) / 2


class TestRefused:
    def test_another_frame_of_reference(self, tmp_path, image, anatomy):
        path = write_structures(anatomy, tmp_path / "s.dcm")
        with pytest.raises(InputError, match="frame of reference"):
            read_structures(path, image, frame="1.2.3")

    def test_structures_outside_the_image(self, tmp_path, image, anatomy):
        far = image.affine.copy()
        far[:3, 3] += 5000
        with pytest.raises(InputError, match="inside the image"):
            read_structures(write_structures(anatomy, tmp_path / "s.dcm"), Volume(image.data, far))

    def test_one_structure_outside_is_told(self, tmp_path, image, anatomy):
        beside = image.affine.copy()
        beside[:3, 3] += image.affine[:3, 2] * 20  # the cord's columns are gone
        read = read_structures(write_structures(anatomy, tmp_path / "s.dcm"), Volume(image.data, beside))
        assert read.notes == (
            "PTV70 reaches beyond the image: what lies outside counts nowhere",
            "Spinal Cord has nothing inside the image",
        )

    def test_a_dose_file(self, tmp_path, image, ct_folder):
        with pytest.raises(InputError, match="not RTSTRUCT"):
            read_structures(next(ct_folder.iterdir()), image)

    def test_no_dicom(self, tmp_path, image):
        (tmp_path / "s.dcm").write_bytes(b"nothing")
        with pytest.raises(InputError, match="no DICOM file"):
            read_structures(tmp_path / "s.dcm", image)

    def test_a_file_without_structures(self, tmp_path, image, anatomy):
        empty = StructureSet((), image.affine)
        with pytest.raises(InputError, match="no structures"):
            read_structures(write_structures(empty, tmp_path / "s.dcm"), image)

    def test_structures_that_nobody_drew(self, tmp_path, image, anatomy):
        empty = StructureSet((anatomy["Larynx"],), image.affine)
        with pytest.raises(InputError, match="holds no contours"):
            read_structures(write_structures(empty, tmp_path / "s.dcm"), image)

    def test_contours_in_crossing_planes(self):
        circle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        flat = np.stack([9 + 5 * np.cos(circle), 9 + 5 * np.sin(circle), np.full(20, 9.3)], 1)
        with pytest.raises(InputError, match="parallel"):
            rasterised([flat, flat[:, [2, 0, 1]]], np.eye(4), (20, 20, 20))


def test_two_structures_of_one_name_in_a_file_get_numbers(tmp_path, image, anatomy):
    path = write_structures(anatomy, tmp_path / "s.dcm")
    dataset = pydicom.dcmread(path)
    dataset.StructureSetROISequence[1].ROIName = "PTV70"
    dataset.save_as(path)
    assert [s.name for s in read_structures(path, image)] == ["PTV70 1", "PTV70 2", "Larynx"]


def test_points_and_open_lines_are_no_regions(tmp_path, image, anatomy):
    path = write_structures(anatomy, tmp_path / "s.dcm")
    dataset = pydicom.dcmread(path)
    for contour in dataset.ROIContourSequence[1].ContourSequence:
        contour.ContourGeometricType = "OPEN_PLANAR"
    dataset.save_as(path)
    assert read_structures(path, image)["Spinal Cord"].empty


def test_structure_sets_refuse_two_of_a_name(image):
    mask = np.zeros(image.shape, bool)
    with pytest.raises(InputError, match="two structures"):
        StructureSet((Structure("a", mask), Structure("a", mask)), image.affine)
