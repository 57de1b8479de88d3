"""A network's input from a CT and named structures, and its dose on the CT's grid again."""

from dataclasses import replace

import numpy as np
import pytest
from planning_grids import CENTRE

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.planning import GRID, network_channels, network_grid, outline, planned, possible_dose
from napari_mamba.radiotherapy.structures import Structure, StructureSet
from napari_mamba.recipes.dose.task import HEAD_NECK
from napari_mamba.volume import Volume

BODY, TARGET, CORD, PAROTID = 1, 2, 3, 4


def scene(affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[Volume, StructureSet]:
    """A cylinder of water on a couch; a target in the middle, a cord behind it, a parotid at its right."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3] - CENTRE, -1, 0)
    body = (np.hypot(x, y) < 70) & (abs(z) < 90)
    couch = (abs(y + 85) < 6) & (abs(x) < 60)
    ct = np.where(body | couch, 0, -1000)
    masks = {
        "PTV70": (abs(x) < 20) & (abs(y) < 20) & (abs(z) < 25),
        "Spinal_Cord": (np.hypot(x, y + 50) < 8) & body,
        "Parotid_R": (np.hypot(x - 45, y) < 10) & (abs(z) < 20),
    }
    return Volume(ct[np.newaxis].astype(np.int16), affine), StructureSet(
        tuple(Structure(name, mask) for name, mask in masks.items()), affine
    )


def ras(spacing, shape) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * np.array(spacing)
    matrix[:3, 3] = CENTRE - matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return matrix


SHAPE = (80, 50, 52)
STRAIGHT = ras((2.5, 4.0, 4.0), SHAPE)


@pytest.fixture
def straight():
    return scene(STRAIGHT, SHAPE)


def network_input(ct, structures):
    """What a network takes, and the grid it lies on."""
    plan = planned(ct, structures, HEAD_NECK).volume
    grid = network_grid(plan, **GRID)
    return network_channels(plan, grid), grid


def channels_of(ct, structures):
    return network_input(ct, structures)[0]


def test_channels_of_a_ct_that_needs_nothing(straight):
    ct, structures = straight
    x = channels_of(ct, structures)
    assert x.shape == (12, *SHAPE)
    np.testing.assert_array_equal(x[2] > 0, structures["spinal cord"].mask)
    np.testing.assert_array_equal(x[3] > 0, structures["Parotid_R"].mask)
    assert [float(c.max()) for c in x[[1, 4, 5, 6, 7]]] == [0] * 5
    np.testing.assert_array_equal(x[8], structures["PTV70"].mask.astype(np.float32))
    np.testing.assert_allclose(x[10:].max((1, 2, 3)), [0.25, 0.4], rtol=1e-5)
    assert "nobody drew the brainstem" in planned(ct, structures, HEAD_NECK).notes[0]


def test_the_couch_is_gone_and_dose_ends_beyond_the_targets(straight):
    ct, structures = straight
    patient = outline(ct, structures)
    assert patient[40, 25, 26]
    assert not patient[:, :7].any()
    possible = possible_dose(patient, ct, structures, 50.0)
    occupied = np.flatnonzero(possible.any((1, 2)))
    assert (occupied[0], occupied[-1]) == (10, 69)  # 20 slices either side of slices 30 to 49
    assert channels_of(ct, structures)[0, :, :6].max() == 0


def test_a_ct_of_other_axes_and_voxels_gives_nearly_the_same(straight):
    wanted = channels_of(*straight)
    fine = (160, 100, 104)
    matrix = ras((1.25, 2.0, 2.0), fine)
    turned = matrix.copy()  # x to the left, y to the back, slices from the head down
    turned[:3, 3] = matrix[:3, 3] + matrix[:3, :3] @ (np.array(fine) - 1)
    turned[:3, :3] *= -1
    x, grid = network_input(*scene(turned, fine))
    spacing = grid.spacing
    np.testing.assert_allclose(spacing, [2.5, 3.9, 3.9])
    sizes = [np.prod(spacing), 2.5 * 4 * 4]
    for channel in (0, 2, 3, 8, 9):  # the small ones are a few voxels across
        volumes = [float(one[channel].sum() * size) for one, size in zip((x, wanted), sizes, strict=True)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.05 if channel in (0, 9) else 0.3)
    where = [np.argwhere(one[3] > 0).mean(0) / one.shape[1:] for one in (x, wanted)]
    np.testing.assert_allclose(where[0], where[1], atol=0.02)


def test_a_drawn_body_is_taken(straight):
    ct, structures = straight
    mask = np.zeros(SHAPE, bool)
    mask[:, 10:40, 10:40] = True
    drawn = replace(structures, structures=(*structures, Structure("External", mask)))
    np.testing.assert_array_equal(outline(ct, drawn), mask)


def test_the_higher_of_two_prescriptions_that_overlap(straight):
    ct, structures = straight
    wide = structures["PTV70"].mask | structures["spinal cord"].mask
    both = replace(structures, structures=(*structures, Structure("PTV 56", wide)))
    x = channels_of(ct, both)[8]
    assert np.unique(x[structures["PTV70"].mask]).tolist() == [1]
    assert np.unique(x[structures["spinal cord"].mask]) == pytest.approx([0.8])


def test_the_tumour_within_the_planning_target_needs_no_prescription(straight):
    ct, structures = straight
    tumour = Structure("GTVp", structures["PTV70"].mask, kind="GTV")
    plan = planned(ct, replace(structures, structures=(*structures, tumour)), HEAD_NECK)
    np.testing.assert_array_equal(plan.volume.data, planned(ct, structures, HEAD_NECK).volume.data)
    assert any(note.startswith("GTVp: no prescription") for note in plan.notes)
    others = tuple(s for s in structures if s.name != "PTV70")
    with pytest.raises(InputError, match="'GTVp' has no prescription"):
        planned(ct, replace(structures, structures=(*others, tumour)), HEAD_NECK)
    alone = planned(ct, replace(structures, structures=(*others, tumour)), HEAD_NECK, {"gtvp": 70.0})
    np.testing.assert_array_equal(alone.volume.data, plan.volume.data)


class TestRefused:
    def refuse(self, straight, says, keep=None, prescribed=None, **changes):
        ct, structures = straight
        kept = [s for s in structures if keep is None or s.name in keep]
        kept = [replace(s, **changes.get(s.name, {})) for s in kept]
        with pytest.raises(InputError, match=says):
            planned(ct, replace(structures, structures=tuple(kept)), HEAD_NECK, prescribed)

    def test_no_target(self, straight):
        self.refuse(straight, "no structure is a target", keep=("Spinal_Cord", "Parotid_R"))

    def test_another_part_of_the_body(self, straight):
        self.refuse(straight, "plan of the head and neck", keep=("PTV70", "Spinal_Cord"))

    def test_without_an_organ_that_is_required(self, straight):
        needed = replace(HEAD_NECK, organs=(*HEAD_NECK.organs[1:], replace(HEAD_NECK.organs[0], required=True)))
        with pytest.raises(InputError, match="nobody drew the brainstem, which this bundle needs"):
            planned(*straight, needed)

    def test_a_target_without_a_prescription(self, straight):
        self.refuse(straight, "no prescription", PTV70={"name": "PTV"})

    @pytest.mark.parametrize("dose", [-70.0, 0.0, 7000.0, float("nan")])
    def test_a_prescription_that_is_none(self, straight, dose):
        self.refuse(straight, "give what is meant", prescribed={"ptv70": dose})

    def test_a_target_outside(self, straight):
        self.refuse(straight, "nothing inside", PTV70={"mask": np.zeros(SHAPE, bool)})

    def test_a_prescription_for_what_is_not_there(self, straight):
        self.refuse(straight, "no structure 'PTV66'", prescribed={"PTV66": 66.0})

    def test_an_empty_ct(self, straight):
        ct, structures = straight
        with pytest.raises(InputError, match="no patient"):
            planned(ct.with_data(np.asarray(ct.data) * 0 - 1000), structures, HEAD_NECK)


def test_a_template_s_empty_structures_are_no_structures(straight):
    ct, structures = straight
    nothing = np.zeros(SHAPE, bool)
    cord = structures["Spinal_Cord"]
    empty = (Structure("Spinal Cord", nothing), Structure("PTV54", nothing), Structure("PTV High", nothing, kind="PTV"))
    drawn = [replace(cord, name="Cord") if one is cord else one for one in structures]
    plan = planned(ct, replace(structures, structures=(*empty, *drawn)), HEAD_NECK)
    np.testing.assert_array_equal(plan.volume.data, planned(ct, structures, HEAD_NECK).volume.data)
    assert plan.prescribed == {"PTV70": 70.0}
    assert any(note.startswith("PTV54, PTV High: nobody drew it") for note in plan.notes)
    lost = replace(structures, structures=(empty[1], *drawn), notes=("PTV54 has nothing inside the image",))
    with pytest.raises(InputError, match="'PTV54' has nothing inside"):
        planned(ct, lost, HEAD_NECK)


def test_organs_go_by_names_as_hospitals_write_them_or_by_their_code():
    def known(name, code=""):
        found = HEAD_NECK.organ_of(Structure(name, np.zeros((1, 1, 1), bool), code=code))
        return found and found.name

    for name in ("Rt Parotid", "PAROTID_R", "Parotid Gland R", "Glnd_Parotid_R", "Parotis re", "Parotide D"):
        assert known(name) == "right parotid"
    assert known("Lt. Parotid") == "left parotid"
    assert (known("Tronc cerebral"), known("Esophagus_Cerv")) == ("brainstem", "oesophagus")
    assert (known("SpinalCord_PRV"), known("Cord+5mm"), known("Parotids")) == (None, None, None)
    assert (known("Struct 3", "119238007"), known("Struct 4", "45289007")) == ("brainstem", None)  # either parotid's
