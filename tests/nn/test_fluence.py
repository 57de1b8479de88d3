"""The fitted fluence: where beams can bring dose, and what physics says of it."""

import pytest
import torch

from napari_mamba.nn.fluence import SOURCE, beams_around, fitted_fluence

SIDE = torch.tensor(4.0)


def water(size: int = 48) -> torch.Tensor:
    return torch.ones(1, size, size)


def square(first: int, last: int, size: int = 48) -> torch.Tensor:
    target = torch.zeros(1, size, size)
    target[:, first:last, first:last] = 1
    return target


def test_a_target_gets_what_it_should_and_nothing_else_does():
    target = square(18, 30)
    fitted, opened = fitted_fluence(target, water(), torch.where(target > 0, 1.0, 0.05), SIDE, steps=30)
    assert fitted[target > 0].mean() == pytest.approx(1, abs=0.05)
    assert fitted[target == 0].mean() < 0.25 < opened[target > 0].mean()
    assert (fitted >= 0).all()
    assert (opened >= 0).all()


def test_more_steps_fit_better():
    target = square(14, 30)
    target[:, 14:22, 14:22] = 0  # an angle around something to spare
    weight = torch.where(target > 0, 1.0, 0.05)

    def cost(steps: int) -> float:
        fitted, _ = fitted_fluence(target, water(), weight, SIDE, steps=steps)
        return float((weight * (fitted - target) ** 2).sum())

    assert cost(40) < cost(10) < cost(1)


def test_what_costs_more_gets_less():
    target, organ = square(16, 32), torch.zeros(1, 48, 48)
    organ[:, 36:40, 16:32] = 1
    weight = torch.where(target > 0, 1.0, 0.02)
    alike, _ = fitted_fluence(target, water(), weight, SIDE, steps=30)
    spared, _ = fitted_fluence(target, water(), weight + organ, SIDE, steps=30)
    assert spared[organ > 0].mean() < 0.7 * alike[organ > 0].mean()


def test_a_mirrored_patient_gets_the_mirrored_dose():
    target = square(12, 22)
    target[:, 26:30, 30:38] = 0.8
    density = torch.rand(1, 48, 48, generator=torch.Generator().manual_seed(0)) + 0.5
    weight = torch.where(target > 0, 1.0, 0.05)
    one, _ = fitted_fluence(target, density, weight, SIDE)
    other, _ = fitted_fluence(target.flip(-1), density.flip(-1), weight.flip(-1), SIDE)
    torch.testing.assert_close(other.flip(-1), one, atol=2e-3, rtol=0)


def test_the_first_beam_comes_from_the_front_and_spreads_from_its_source():
    side, isocentre = torch.tensor(10.0), torch.tensor([15.5, 15.5])
    beams = beams_around((32, 32), side, isocentre, count=4)
    front = beams.to_beam[0, :, 16]  # a central ray: x, y from -1 to 1
    assert front[0, 1] > 0.9  # it begins at the last row, in front,
    assert front[-1, 1] < -0.9  # and runs to the back
    edge = (beams.to_beam[0, :, 31, 0] * 16).abs() / 15.5  # how far the outermost ray is off the centre
    along = 10.0 * (torch.arange(32) - 15.5)
    torch.testing.assert_close(edge, (SOURCE + along) / SOURCE, atol=1e-4, rtol=0)


def test_to_the_beam_and_back_is_where_one_was():
    beams = beams_around((40, 40), SIDE, torch.tensor([21.0, 18.0]), count=9)
    smooth = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 40, 40), 9, 1, 4).expand(9, -1, -1, -1)
    there = torch.nn.functional.grid_sample(smooth, beams.to_beam, align_corners=False)
    back = torch.nn.functional.grid_sample(there, beams.to_patient, align_corners=False)
    torch.testing.assert_close(back[:, :, 12:28, 12:28], smooth[:, :, 12:28, 12:28], atol=0.03, rtol=0)


def test_dose_falls_with_depth():
    target = square(20, 28)
    _, opened = fitted_fluence(target, water(), torch.ones(1, 48, 48), SIDE, beams=1, steps=1)
    column = opened[0, :, 24]
    assert column[40] > column[24] > column[4] > 0  # rows run to the front, where the one beam enters
