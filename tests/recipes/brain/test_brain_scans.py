"""Real scans beside synthetic images: how they are labelled, packed, and mixed into batches."""

import numpy as np
import pytest
import torch

from napari_mamba import engine, io
from napari_mamba.errors import InputError
from napari_mamba.recipes.brain import pseudo_labels, scans
from napari_mamba.recipes.brain.recipe import BrainStructures
from napari_mamba.recipes.brain.scans import Scans
from napari_mamba.recipes.brain.structures import INDICES
from napari_mamba.recipes.brain.synthetic import geometry, synthesis
from napari_mamba.recipes.brain.synthetic.synthesis import LabelMapBatch, synthesise
from napari_mamba.volume import Volume

CPU = torch.device("cpu")
WHITE_LEFT, WHITE_RIGHT = INDICES.index(2), INDICES.index(41)
RAS = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])


def ball(shape=(60, 64, 60), middle=(30, 32, 30)) -> np.ndarray:
    """An egg with a dent, so that no rotation leaves it as it is; from 0 to 1."""
    z, y, x = np.indices(shape, dtype=float)
    r = np.sqrt(((z - middle[0]) / 20) ** 2 + ((y - middle[1]) / 25) ** 2 + ((x - middle[2]) / 16) ** 2)
    dent = np.sqrt((z - middle[0] - 8) ** 2 + (y - middle[1] - 10) ** 2 + (x - middle[2] + 5) ** 2)
    return np.clip(5 * (1 - r), 0, 1) * np.where(dent < 6, 0.4, 1)


def halves(shape=(40, 40, 40)) -> np.ndarray:
    """Classes: left white matter at low x, right at high x, in a box."""
    classes = np.zeros(shape, np.uint8)
    classes[8:-8, 8:-8, 8:20] = WHITE_LEFT
    classes[8:-8, 8:-8, 20:-8] = WHITE_RIGHT
    return classes


def one_scan() -> Scans:
    """Bright on the left, dark on the right, black outside."""
    classes = halves()
    image = np.select([classes == WHITE_LEFT, classes == WHITE_RIGHT], [200, 100]).astype(np.uint8)
    return Scans([torch.from_numpy(image)], [torch.from_numpy(classes)], np.array([[8, 8, 8, 32, 32, 32]]))


def test_packed_scans_are_scaled_as_the_bundle_does_and_cropped_about_the_brain():
    classes = np.pad(halves(), ((60, 0), (40, 40), (30, 30)))
    image = np.where(classes == WHITE_LEFT, 3000.0, np.where(classes == WHITE_RIGHT, 1500.0, -5.0))
    found = scans.unpack(scans.pack([(image, classes)]), CPU)
    box = found.boxes[0]
    inside = tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))
    assert (found.classes[0] > 0).sum() == (classes > 0).sum()
    assert np.array_equal(found.classes[0].numpy()[inside], halves()[8:-8, 8:-8, 8:-8])
    assert found.classes[0].shape < classes.shape
    assert np.unique(found.images[0].numpy()).tolist() == [0, 128, 255]


def test_without_scans_there_are_none():
    assert scans.unpack({"raw": np.zeros(1)}, CPU) is None


def test_a_window_shows_the_same_place_in_image_and_classes_and_left_stays_left():
    """Left is bright in the scan, so in a mirrored window the classes at the bright side are the right's."""
    scan, mirrored = one_scan(), 0
    for seed in range(12):
        image, classes = scan.window(np.random.default_rng(seed), torch.zeros(3, 32, 32, 32))
        place = torch.arange(32).float().expand(32, 32, 32)
        left, right = (place[classes == side].mean() for side in (WHITE_LEFT, WHITE_RIGHT))
        assert left < right
        bright = image > 150 / 255
        mirrored += bool((classes[bright] == WHITE_RIGHT).float().mean() > 0.5)
        side = WHITE_RIGHT if image[classes == WHITE_RIGHT].mean() > 0.6 else WHITE_LEFT
        assert (classes[image > 190 / 255] == side).float().mean() > 0.97
    assert 0 < mirrored < 12


def test_an_image_is_interpolated_where_labels_take_the_nearest_voxel():
    image = torch.rand(6, 7, 8)
    centre, turn = np.array([2.3, 3.1, 4.2]), np.array([[0.9, 0.1, 0], [-0.1, 0.9, 0.05], [0, 0.02, -1.1]])
    shift = torch.randn(3, 4, 4, 4) / 3
    from scipy.ndimage import map_coordinates

    steps = np.stack(np.meshgrid(*[np.arange(4) - 1.5] * 3, indexing="ij")) + shift.numpy()
    places = np.einsum("ij,jzyx->izyx", turn, steps) + centre[:, None, None, None]
    expected = map_coordinates(image.numpy(), places, order=1, mode="grid-constant")
    found = geometry.sample_image(image, centre, turn, shift)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def heads(given: Scans | None) -> LabelMapBatch:
    labels = np.zeros((48, 48, 48), np.uint8)
    labels[10:-10, 10:-10, 10:24] = 1
    labels[10:-10, 10:-10, 24:-10] = 2
    return LabelMapBatch(
        [torch.from_numpy(labels)] * 4, np.array([[10, 10, 10, 38, 38, 38]] * 4), np.array([0, 3, 42]), given
    )


def test_so_many_images_of_a_batch_are_scans(monkeypatch):
    """The maps know the cortex alone, the scans white matter alone."""
    monkeypatch.setattr(synthesis, "CUT", 0.0)
    _, targets = synthesise(heads(one_scan()), (1,), 60, (16, 16, 16))
    real = [bool(torch.isin(one, torch.tensor([WHITE_LEFT, WHITE_RIGHT])).any()) for one in targets]
    cortex = [bool(torch.isin(one, torch.tensor([INDICES.index(3), INDICES.index(42)])).any()) for one in targets]
    assert not any(a and b for a, b in zip(real, cortex, strict=True))
    assert 0.3 < np.mean(real) < 0.7


def test_a_scan_in_a_batch_is_its_own_image():
    """Left is twice as bright as right in the scan; noise, bias and gamma do not turn that round."""
    seen = 0
    for seed in range(40):
        images, targets = synthesise(heads(one_scan()), (seed,), 1, (24, 24, 24))
        left, right = (images[targets == side] for side in (WHITE_LEFT, WHITE_RIGHT))
        if min(left.numel(), right.numel()) > 500:
            seen += 1
            bright, dark = max(left.median(), right.median()), min(left.median(), right.median())
            assert bright > 1.15 * dark
    assert seen > 3


def test_without_scans_images_are_those_of_before():
    """Held-out images, and so the scores of one version beside another's, must not change with what a recipe learns."""
    images, targets = synthesise(heads(None), (4,), 2, (16, 16, 16))
    assert [int((targets == value).sum()) for value in targets.unique()] == [2187, 2184, 3821]
    assert float(images.mean()) == pytest.approx(0.48647, abs=1e-4)
    images, targets = synthesise(heads(None), (5,), 2, (16, 16, 16), central=True)
    assert [int((targets == value).sum()) for value in targets.unique()] == [2, 3908, 4282]
    assert float(images.mean()) == pytest.approx(0.49694, abs=1e-4)


def test_people_are_those_with_a_t1_and_another_scan(tmp_path):
    """The first T1 is what the others are aligned to, whatever visit they are of."""
    names = (
        "p1/study1_FLAIR p1/study2_FLAIR p1/study2_T1W p1/study3_T1W p2/study1_T1W p2/study1_PD p3/study1_T2W p3/x_T2W"
    )
    for name in names.split():
        file = tmp_path / f"{name}.nii.gz"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    found = pseudo_labels.subjects(tmp_path)
    assert list(found) == ["p1"]
    assert list(found["p1"]) == ["study2_T1W", "study3_T1W", "study1_FLAIR", "study2_FLAIR"]


def test_a_folder_without_people_is_refused(tmp_path):
    with pytest.raises(InputError, match="nobody with a T1"):
        pseudo_labels.subjects(tmp_path)


def test_upright_images_are_ras_at_1_mm_and_in_their_place(tmp_path):
    """Stored in LAS with slices of 3 mm, read back: the egg's middle stays where it was in the patient."""
    egg = ball()
    thick = egg.reshape(20, 3, 64, 60).mean(1)[:, :, ::-1].copy()
    affine = np.array([[0, 0, -1, 70.0], [0, 1, 0, -20.0], [3, 0, 0, 11.0], [0, 0, 0, 1]])
    io.write(Volume(thick[None].astype(np.float32), affine), tmp_path / "egg.nii.gz")
    image = pseudo_labels.to_canonical(io.read(tmp_path / "egg.nii.gz"))
    assert image.GetSpacing() == (1, 1, 1)
    assert np.allclose(np.reshape(image.GetDirection(), (3, 3)), np.diag([-1, -1, 1]))
    array = pseudo_labels.simpleitk().GetArrayFromImage(image)
    assert array.shape == egg.shape
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    assert np.allclose([*middle, 1], np.diag([-1, -1, 1, 1]) @ affine @ [9.5, 31.5, 29.5, 1], atol=1e-3)
    assert np.abs(array - egg).mean() < 0.02
    dent = array[38, 42, 25], array[38, 42, 35], array[38, 22, 25]  # it, and its mirror images
    assert dent[0] < 0.5 < 0.9 < min(dent[1:])


def moved(egg: np.ndarray, shift: tuple[float, float, float]) -> np.ndarray:
    from scipy.ndimage import shift as shifted

    return shifted(egg, shift, order=1)


def test_alignment_finds_how_the_head_moved():
    """The second contrast is inverted and 3 mm lower, 2 mm further back."""
    fixed = pseudo_labels.itk_image(ball().astype(np.float32), RAS)
    moving = pseudo_labels.itk_image((1 - moved(ball(), (-3, -2, 0))).astype(np.float32), RAS)
    point = fixed.TransformContinuousIndexToPhysicalPoint((30, 32, 30))
    there = pseudo_labels.align(fixed, moving).TransformPoint(point)
    index = moving.TransformPhysicalPointToContinuousIndex(there)
    assert np.allclose(index, (30, 30, 27), atol=0.5)


def test_fused_labels_follow_each_contrasts_own_grid():
    """T1 counts twice: where it and FLAIR differ it wins, and its answer moves with the head."""
    classes = halves()
    other = np.where(classes > 0, INDICES.index(3), 0)
    low = np.roll(classes, -3, axis=0)
    chances = [
        np.eye(len(INDICES), dtype=np.uint8)[one].transpose(3, 0, 1, 2) * 255
        for one in (classes, np.roll(other, -3, 0))
    ]
    images = {c: pseudo_labels.itk_image(np.zeros(classes.shape, np.float32), RAS) for c in ("a_T1W", "a_FLAIR")}
    itk = pseudo_labels.simpleitk()
    aligned = {"a_T1W": itk.Transform(3, itk.sitkIdentity), "a_FLAIR": itk.TranslationTransform(3, (0, 0, -3))}
    answers = dict(zip(("a_T1W", "a_FLAIR"), chances, strict=True))
    inside = (slice(4, -4),) * 3
    assert np.array_equal(pseudo_labels.fuse("a_T1W", images, answers, aligned)[inside], classes[inside])
    assert np.array_equal(pseudo_labels.fuse("a_FLAIR", images, answers, aligned)[inside], low[inside])


def test_a_contrast_reaches_another_through_the_reference():
    """T2 lies 4 mm to the side of the reference, FLAIR a quarter turn from it: the way back comes first."""
    itk = pseudo_labels.simpleitk()
    classes = np.zeros((12, 40, 40), np.uint8)
    classes[2:-2, 6:14, 22:34] = WHITE_LEFT
    image = pseudo_labels.itk_image(np.zeros(classes.shape, np.float32), RAS)
    middle = image.TransformContinuousIndexToPhysicalPoint((19.5, 19.5, 5.5))
    turn = itk.Euler3DTransform(middle, 0, 0, np.pi / 2)
    aside = itk.TranslationTransform(3, (4, 0, 0))
    own = pseudo_labels.itk_image(classes, RAS)
    seen = {
        name: itk.GetArrayFromImage(itk.Resample(own, image, way.GetInverse(), itk.sitkNearestNeighbor, 0))
        for name, way in (("T2W", aside), ("FLAIR", turn))
    }
    assert not np.array_equal(seen["T2W"], seen["FLAIR"])
    nothing = np.zeros((len(INDICES), *classes.shape), np.uint8)
    flair = np.eye(len(INDICES), dtype=np.uint8)[seen["FLAIR"]].transpose(3, 0, 1, 2) * 255
    fused = pseudo_labels.fuse(
        "a_T2W",
        {"a_T2W": image, "b_FLAIR": image},
        {"a_T2W": nothing, "b_FLAIR": flair},
        {"a_T2W": aside, "b_FLAIR": turn},
    )
    assert (fused == seen["T2W"]).mean() > 0.99


@pytest.fixture
def native(tmp_path):
    """One person: an egg in T1, and 3 mm lower in the other visit's FLAIR, where its rim is too dark to be anything."""
    folder = tmp_path / "native_mr" / "p1"
    folder.mkdir(parents=True)
    affine = RAS.copy()
    affine[:3, 3] = (-30, -30, -30)
    egg = ball().astype(np.float32)
    io.write(Volume(egg[None], affine), folder / "study1_T1W.nii.gz")
    io.write(Volume(moved(egg**2, (-3, 0, 0))[None].astype(np.float32), affine), folder / "study2_FLAIR.nii.gz")
    return tmp_path


def test_scans_of_a_person_are_taught_what_the_t1_shows(native, sure_answers):
    """FLAIR alone would find the egg a rim smaller; both get the T1's labels, each in its own place."""
    told = []
    packed = pseudo_labels.pseudo_label(native / "native_mr", None, engine.RunOptions(), told.append)
    assert told == packed["scan_names"].tolist() == ["p1/study1_T1W", "p1/study2_FLAIR"]
    found = scans.unpack(packed, CPU)
    sizes = [int((classes == WHITE_LEFT).sum()) for classes in found.classes]
    alone = int((ball() ** 2 > 0.5).sum())
    assert sizes[0] == pytest.approx((ball() > 0.5).sum(), rel=0.01)
    assert sizes[1] > alone + 0.7 * (sizes[0] - alone)
    for image, classes in zip(found.images, found.classes, strict=True):
        assert float(image[classes == WHITE_LEFT].float().min()) > 40  # the labels lie on the egg


def test_a_recipe_labels_the_scans_beside_its_maps_and_keeps_them_in_its_file(native, sure_answers, monkeypatch):
    monkeypatch.setattr("napari_mamba.bundles.load", lambda name: None)
    maps = native / "brain_label_maps"
    maps.mkdir()
    for number in range(4):
        labels = np.zeros((40, 40, 40), np.int16)
        labels[8:-8, 8:-8, 8:20], labels[8:-8, 8:-8, 20:-8] = 3, 42
        io.write(Volume(labels[None], RAS), maps / f"{number}.nii.gz")
    recipe = BrainStructures(maps)
    stored = BrainStructures(recipe.save_arrays(native / "brain.npz"))
    assert set(stored.scans) == set(recipe.scans)
    assert len(stored.heads(CPU).scans.images) == 2
    assert stored.heads(CPU, held_out=True).scans is None


def test_a_recipe_without_scans_trains_on_maps_alone(tmp_path):
    assert BrainStructures(tmp_path / "brain_label_maps").scans == {}
