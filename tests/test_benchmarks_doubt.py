"""What the benchmarks of doubts compute: who fits, what is held out, crops planted into a head, turned stacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_mamba.engine.familiarity.image_features import GROUPS
from napari_mamba.volume import Volume

RAS = np.eye(4)[[2, 1, 0, 3]]


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def made_rows() -> dict[str, np.ndarray]:
    """Features of right images about 0, of brainstems about 2, of parotid glands (held out) about 4."""
    random = np.random.default_rng(0)
    size = sum(GROUPS.values())
    kinds = ["a gland"] * 40 + ["brainstem"] * 20 + ["parotid gland"] * 20
    rows = [(part, kind) for part in ("fit", "choose", "test") for kind in kinds]
    shift = np.array([{"a gland": 0, "brainstem": 2, "parotid gland": 4}[kind] for _, kind in rows])
    return {
        "part": np.array([part for part, _ in rows]),
        "kind": np.array([kind for _, kind in rows]),
        "right": np.array([kind == "a gland" for _, kind in rows]),
        "refused": np.zeros(len(rows), bool),
        "image": random.normal(size=(len(rows), size)) * 0.3 + shift[:, None],
        "network": np.zeros((len(rows), 0)),
        "around": np.zeros((len(rows), 0)),
    }


def test_right_images_are_familiar_and_kinds_held_out_teach_nothing() -> None:
    from benchmarks.bundles.doubt import fitting

    rows = made_rows()
    found = fitting.fit("adrenal-shape", rows)
    assert found.image_kinds is not None
    assert found.image_kinds.names == ("like another part of the body or another contrast",)
    assert found.fitted["fit"] == {"right": 40, "others": 20}  # parotid glands are of the test alone
    summary = fitting.summary("adrenal-shape", rows, found)
    assert summary["right"]["images"] == 40
    assert summary["right"]["doubted"] <= 2
    assert summary["others"] == {"images": 20, "doubted": 20}
    assert summary["held_out_kinds"] == {"images": 20, "doubted": 20}
    assert "parotid gland (kind held out) | 20 | 100%" in fitting.table("adrenal-shape", rows, found)
    moved = rows | {"image": np.where((rows["kind"] == "parotid gland")[:, None], 0.0, rows["image"])}
    again = fitting.fit("adrenal-shape", moved)
    np.testing.assert_allclose(again.image.mean, found.image.mean)
    np.testing.assert_allclose(again.image_kinds.weights, found.image_kinds.weights)


def test_features_of_an_older_cache_are_the_first_groups() -> None:
    from benchmarks.bundles.doubt import fitting

    groups = fitting.groups_of("adrenal-shape", "image", 163)
    assert sum(groups.values()) == 163
    assert list(groups) == list(GROUPS)[: len(groups)]


def test_a_planted_crop_lies_where_the_hippocampus_was() -> None:
    from benchmarks.bundles import hippocampus_boxes as boxes

    random = np.random.default_rng(0)
    head, image = random.random((60, 70, 60)) * 100, random.random((20, 24, 18)) * 5
    labels = np.zeros(image.shape, np.uint8)
    labels[8:13, 6:19, 7:12] = 1
    middle = np.array([30, 35, 28])
    made, drawn, low, high = boxes.planted(head, image, labels, middle)
    assert np.abs(np.argwhere(drawn).mean(0) - middle).max() <= 0.5
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    outside = np.ones(head.shape, bool)
    outside[inside] = False
    np.testing.assert_array_equal(made[outside], head[outside])
    core = tuple(slice(a + 4, b - 4) for a, b in zip(low, high, strict=True))
    assert np.corrcoef(made[core].ravel(), image[4:-4, 4:-4, 4:-4].ravel())[0, 1] > 0.99
    box = boxes.box_around(head.shape, middle, 30, random)
    assert [s.stop - s.start for s in box] == [30, 30, 30]
    assert all(s.start <= m < s.stop for s, m in zip(box, middle, strict=True))


def test_thick_slices_keep_their_place() -> None:
    from benchmarks.bundles.doubt.kinds import heads

    data = np.random.default_rng(0).random((1, 24, 24, 24)).astype(np.float32)
    volume = Volume(data, RAS)
    thick = heads.thickened(volume, np.random.default_rng(3))
    axis = int(np.argmax(thick.spacing))
    assert thick.spacing[axis] >= 2
    middles = [v.affine[:3, :3] @ ((np.array(v.shape) - 1) / 2) + v.affine[:3, 3] for v in (volume, thick)]
    assert np.abs(middles[0] - middles[1]).max() <= thick.spacing[axis] / 2


def test_the_better_setting_of_a_method_counts() -> None:
    from benchmarks.bundles import denoise_kspace as kspace

    scores = {"noisy": [20.0], "nlm 0.8": [25.0], "nlm 1": [24.0], "bm4d": [26.0], "mr-denoise": [27.5]}
    assert kspace.best_of(scores, "nlm") == ("nlm 0.8", 25.0)
    assert kspace.row(0.9, scores) == "| 0.9 | 20.00 | 25.00 | 26.00 | 27.50 | +1.50 |"


def test_a_ct_in_a_window_has_no_hounsfield_units() -> None:
    from benchmarks.bundles.doubt.kinds.images import windowed

    made = windowed(Volume(np.array([-1000.0, -160.0, 40.0, 239.0, 900.0]).reshape(1, 5, 1, 1), RAS), "soft tissue")
    np.testing.assert_array_equal(np.asarray(made.data).ravel(), [0, 0, 128, 254, 255])


def test_sides_differ_pair_by_pair_as_far_as_people_do() -> None:
    from benchmarks.bundles.doubt import plausible
    from napari_mamba.recipes.brain.bundle import COMPARED_SIDES

    even = dict.fromkeys(COMPARED_SIDES, 100.0)
    found = plausible.sides([{"ml": even}, {"ml": {**even, 2: 102.0, 41: 98.0, 17: 190.0, 53: 10.0}}])
    assert found["pairs"] == list(COMPARED_SIDES)
    limits = dict(zip(COMPARED_SIDES[::2], found["difference"], strict=True))
    assert limits[2] == pytest.approx(2 * (0.02 + 3 * 0.01), abs=0.002)  # 2 and 3 times a deviation of 0.01
    assert limits[17] == plausible.MOST_DIFFERENT  # more than that is told whatever people are like
    assert limits[3] == 0
