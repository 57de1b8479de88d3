"""Schemes of learning from few labels, against cases worked out by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_mamba.bundles import Network
from napari_mamba.training.adaptation import validation
from napari_mamba.training.adaptation.data.people import Case
from napari_mamba.training.adaptation.data.samples import Batch, Patches, Prepared
from napari_mamba.training.adaptation.loss import UNKNOWN, partial_loss
from napari_mamba.training.adaptation.schemes import CrossSupervised, MeanTeacher, Scheme, Scribbles, networks
from napari_mamba.training.adaptation.schemes.base import ramp_up
from napari_mamba.training.adaptation.schemes.cross import broken_stick, contrast, pseudo_dice
from napari_mamba.training.adaptation.schemes.masked import blocks, hide, masked_loss
from napari_mamba.training.adaptation.schemes.mean_teacher import disagreement

BOTH = (True, True)


@pytest.fixture(autouse=True)
def _in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked out by hand: not in the bfloat16 of CPUs that have it."""
    monkeypatch.setattr(validation, "bfloat16_is_fast", lambda device: False)


def answering(*logits: float) -> nn.Module:
    """A network whose logits are the same in every voxel, and learn."""
    network = nn.Conv3d(1, len(logits), 1)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.tensor(logits))
    return network


def batch(target: Tensor, labelled: int | None = None) -> Batch:
    image = torch.ones(len(target), 1, *target.shape[1:])
    return Batch(image, image, target, len(target) if labelled is None else labelled)


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def whole(channel: int, count: int = 1) -> Tensor:
    return torch.full((count, 2, 2, 2), channel)


def test_the_average_follows_the_first_network_and_is_what_is_kept() -> None:
    scheme = Scheme([answering(0.0, 1.0)], BOTH)
    with torch.no_grad():
        scheme.students[0].bias.fill_(11.0)
    scheme.follow(0)  # a tenth of the first value stays after the first step
    torch.testing.assert_close(scheme.average.bias, torch.tensor([0.1 * 0 + 0.9 * 11, 0.1 * 1 + 0.9 * 11]))
    scheme.follow(10_000)
    torch.testing.assert_close(scheme.average.bias, 0.99 * torch.tensor([9.9, 10.0]) + 0.01 * 11)
    assert not any(p.requires_grad for p in scheme.average.parameters())


def test_a_teacher_pulls_where_there_are_no_labels() -> None:
    scheme = MeanTeacher([answering(0.0, 0.0)], BOTH)
    with torch.no_grad():
        scheme.average.bias.copy_(torch.tensor([0.0, np.log(3.0)]))  # probabilities 1/4 and 3/4
    unlabelled = batch(whole(UNKNOWN), 0)
    # each of two classes is 1/4 away: 2 / 16
    assert float(scheme.loss(unlabelled, 1.0, draw()).detach()) == pytest.approx(0.125)
    assert float(scheme.loss(unlabelled, 0.0, draw()).detach()) == pytest.approx(0.125 * np.exp(-5))
    scheme.loss(unlabelled, 1.0, draw()).backward()
    assert scheme.students[0].bias.grad[1] < 0  # towards the teacher's class
    assert scheme.average.bias.grad is None


def test_disagreement_is_a_mean_over_voxels() -> None:
    one = torch.zeros(1, 2, 2)
    other = one.clone()
    other[0, 0, 0] = 100.0  # (1, 0) instead of (1/2, 1/2) in one of two voxels
    assert float(disagreement(one, other)) == pytest.approx(0.25)


def test_cross_supervision_is_the_sum_of_its_parts() -> None:
    """Network 1 says (3/4, 1/4), network 2 (1/4, 3/4) everywhere; one labelled and one unlabelled image."""
    three = float(np.log(3.0))
    scheme = CrossSupervised([answering(three, 0.0), answering(0.0, three)], BOTH)
    target = torch.cat([whole(0), whole(UNKNOWN)])
    found = float(scheme.loss(batch(target, 1), 1.0, draw()).detach())
    supervised = 0.0
    for p in ((0.75, 0.25), (0.25, 0.75)):
        logits = torch.log(torch.tensor(p)).view(1, 2, 1, 1, 1).expand(1, 2, 2, 2, 2)
        supervised += 0.5 * float(partial_loss(logits, target[:1], BOTH))
    # squared denominators: what the other calls its class, eight voxels of p = 1/4, and none of the other class
    right = 1 - 2 * 8 * 0.25 / (8 * 0.25**2 + 8)
    pseudo = 2 * 0.1 * (right + 1.0) / 2
    # mean logits (log 3, 0) and (0, log 3) have the lengths 1 at right angles: (1 + 1) / 2 classes
    assert found == pytest.approx(supervised + pseudo + 1.0, abs=1e-4)
    assert ramp_up(0.0) == pytest.approx(np.exp(-5))


def test_pseudo_labels_teach_the_other_and_are_not_taught() -> None:
    scheme = CrossSupervised([answering(1.0, 0.0), answering(0.0, 9.0)], BOTH)
    logits = [student(torch.ones(1, 1, 2, 2, 2)) for student in scheme.students]
    pseudo_dice(logits[0].softmax(1), logits[1].argmax(1)).backward()
    assert scheme.students[0].bias.grad[1] < 0
    assert scheme.students[1].bias.grad is None


def test_contrast_does_not_see_the_length_of_logits() -> None:
    one = torch.randn(2, 3, 4, 4)
    assert float(contrast(one, 7 * one)) == pytest.approx(0, abs=1e-10)
    assert float(contrast(one, -one)) == pytest.approx(4 / 3, rel=1e-5)  # |2n|^2 over three classes


def test_scribbles_are_filled_by_a_mixture_of_all() -> None:
    """Two of three networks are sure of class 1; whatever the mixture, what each is told is one class everywhere."""
    scheme = Scribbles([answering(0.0, 30.0), answering(0.0, 30.0), answering(0.0, 30.0)], BOTH)
    target = whole(UNKNOWN)
    target[0, 0, 0, 0] = 1
    # class 0 is answered and told nowhere: its Dice is eps / eps, a perfect one
    assert float(scheme.loss(batch(target), 0.5, draw()).detach()) == pytest.approx(0, abs=1e-4)
    wrong = target.clone()
    wrong[0, 0, 0, 0] = 0
    assert float(scheme.loss(batch(wrong), 0.5, draw()).detach()) == pytest.approx(3 * 30, abs=1e-2)


def test_the_mixture_of_all_counts_more_and_more() -> None:
    """Networks that disagree pay for it with the whole Dice at the end, and with hardly any at the start."""
    scheme = Scribbles([answering(5.0, 0.0), answering(0.0, 5.0), answering(0.0, 5.0)], BOTH)
    target = whole(UNKNOWN)
    target[0, 0, 0, 0] = 1
    sure, unsure = np.log1p(np.exp(-5)), np.log1p(np.exp(5))
    known = 2 * sure + unsure
    early, late = (float(scheme.loss(batch(target), share, draw()).detach()) - known for share in (0.0, 1.0))
    assert late > 0.5
    assert early == pytest.approx(late * np.exp(-5), rel=1e-3)


def test_a_stick_breaks_at_uniform_points() -> None:
    parts = torch.stack([broken_stick(3, torch.Generator().manual_seed(seed)) for seed in range(2000)])
    torch.testing.assert_close(parts.sum(1), torch.ones(2000))
    assert (parts >= 0).all()
    assert parts.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert parts.var(0).tolist() == pytest.approx([1 / 18] * 3, rel=0.1)  # of Dirichlet(1, 1, 1)


def test_six_of_ten_blocks_are_hidden_and_asked_for() -> None:
    image = torch.arange(2 * 16**3, dtype=torch.float32).view(2, 1, 16, 16, 16)
    shown, answer, hidden = hide(image, draw())
    assert hidden.float().mean((1, 2, 3, 4)).tolist() == pytest.approx([0.6, 0.6], abs=0.02)
    assert (shown[hidden] == 0).all()
    torch.testing.assert_close(shown[~hidden], answer[~hidden])
    torch.testing.assert_close(answer.mean((1, 2, 3, 4)), torch.zeros(2), atol=1e-5, rtol=0)
    assert float(masked_loss(answer, answer, hidden)) == 0
    spoilt = torch.where(hidden, answer, 99.0)  # what was shown is not asked for
    assert float(masked_loss(spoilt, answer, hidden)) == 0
    assert float(masked_loss(answer + 2, answer, hidden)) == pytest.approx(4, rel=1e-5)
    cells = blocks(1, (16, 16, 16), draw(), 0.6)[0, 0].view(4, 4, 4, 4, 4, 4).permute(0, 2, 4, 1, 3, 5).flatten(3)
    assert ((cells.float().mean(-1) == 0) | (cells.float().mean(-1) == 1)).all()


def case(number: int, labels: np.ndarray) -> Prepared:
    places = {int(k): np.argwhere(labels == k) for k in np.unique(labels) if k != UNKNOWN}
    image = np.full((1, *labels.shape), number, np.float32)
    return Prepared(Case(str(number), str(number), (), None), image, labels, places, bool((labels >= 0).all()))


def test_patches_without_labels_follow_those_with() -> None:
    drawn = np.zeros((8, 8, 8), np.int16)
    drawn[2:6, 2:6, 2:6] = 1
    patches = Patches(
        [case(0, drawn)], (8, 8, 8), 2, seed=3, unlabelled=[case(5, np.full_like(drawn, UNKNOWN))], views=2
    )
    made = patches.batch(0, torch.device("cpu"))
    assert (made.labelled, len(made.image), len(made.target)) == (2, 4, 4)
    assert (made.target[:2] != UNKNOWN).any()
    assert (made.target[2:] == UNKNOWN).all()
    assert made.image[2:].max() > 2  # the other image
    assert not torch.equal(made.image, made.other)
    again = patches.batch(0, torch.device("cpu"))
    assert torch.equal(made.image, again.image)
    assert torch.equal(made.target, again.target)


def test_further_networks_begin_halfway_to_random_weights() -> None:
    described = Network("umamba_bot", {
        "spatial_dims": 3, "input_channels": 1, "num_classes": 2, "features_per_stage": [4, 8],
        "kernel_sizes": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]], "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
    })  # fmt: skip
    first = networks.fresh(described, 1)
    before = torch.random.get_rng_state()
    one, two = networks.further(first, described, 2, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    key, own = next((key, value) for key, value in first.named_parameters() if value.ndim == 5)
    for other in (one, two):
        mixed = dict(other.named_parameters())[key]
        assert not torch.equal(mixed, own)
        assert float(torch.corrcoef(torch.stack([mixed.flatten(), own.flatten()]).detach())[0, 1]) > 0.4
    assert not torch.equal(dict(one.named_parameters())[key], dict(two.named_parameters())[key])


def test_a_part_that_stays_has_no_gradient() -> None:
    network = nn.Module()
    network.encoder, network.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
    before = copy.deepcopy(network.state_dict())
    networks.freeze(network, "encoder", "it")
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
