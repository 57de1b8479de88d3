"""Operations that are cut by their shapes: PyTorch's own numbers, and the same bytes on any number of threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from napari_mamba.engine.reproducibility.partition import fixed_partition


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


LAYERS = {
    "linear": (nn.Linear(32, 17), (3, 4099, 32)),
    "1x1x1": (nn.Conv3d(48, 24, 1, bias=False), (1, 48, 12, 20, 21)),
    "3x3x3": (nn.Conv3d(8, 12, 3, padding=1), (2, 8, 17, 20, 21)),
    "stride 2": (nn.Conv3d(8, 16, 3, stride=2, padding=1), (1, 8, 37, 41, 30)),
    "dilated": (nn.Conv3d(4, 8, 3, padding=2, dilation=2), (1, 4, 19, 24, 24)),
    "no padding": (nn.Conv3d(4, 8, (5, 1, 3)), (1, 4, 33, 24, 24)),
    "one voxel thick": (nn.Conv3d(8, 8, (1, 3, 3), padding=(0, 1, 1)), (1, 8, 1, 96, 96)),
    "small and wide": (nn.Conv3d(160, 160, 3, padding=1), (1, 160, 5, 6, 7)),
    "tiny": (nn.Conv3d(32, 16, 3, padding=1), (1, 32, 4, 5, 6)),
    "tiny, stride 2 across": (nn.Conv2d(6, 16, (3, 5), stride=(1, 2), padding=(1, 2)), (2, 6, 9, 10)),
    "few channels of many voxels": (nn.Conv3d(16, 16, 3, padding=1), (1, 16, 32, 32, 32)),
    "depthwise": (nn.Conv3d(96, 96, 3, padding=1, groups=96), (1, 96, 6, 9, 9)),
    "depthwise slabs": (nn.Conv2d(16, 32, 3, padding=1, groups=16), (2, 16, 64, 40)),
    "circular": (nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), (2, 3, 64, 70)),
    "same": (nn.Conv2d(3, 8, 3, padding="same"), (2, 3, 64, 70)),
    "conv1d": (nn.Conv1d(16, 16, 4, padding=3), (1, 16, 4096)),
    "transposed": (nn.ConvTranspose3d(16, 8, 2, stride=2), (1, 16, 9, 10, 11)),
    "transposed that overlaps": (nn.ConvTranspose3d(8, 8, 3, stride=2, padding=1), (1, 8, 9, 20, 20)),
    "instance norm": (nn.InstanceNorm3d(12, affine=True), (2, 12, 15, 16, 17)),
    "leaky": (nn.LeakyReLU(0.01, inplace=False), (1, 5, 33, 33, 33)),
    "silu": (nn.SiLU(), (1, 5, 33, 33, 33)),
    "gelu": (nn.GELU(), (1, 5, 33, 33, 33)),
    "softplus": (nn.Softplus(), (1, 5, 33, 33, 33)),
    "softmax": (nn.Softmax(1), (1, 320, 5, 6, 5)),
}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", LAYERS)
@torch.inference_mode()
def test_a_layer_is_pytorchs_and_the_same_on_any_number_of_threads(name, threads):
    layer, shape = LAYERS[name]
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = noise(*shape)
    expected = layer(x)
    found = []
    for count in (1, 2, 3, 4):
        threads(count)
        with fixed_partition():
            found.append(layer(x))
        assert torch.get_num_threads() == count
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)
    assert found[0].dtype == expected.dtype
    assert all(torch.equal(found[0], one) for one in found[1:])


@torch.inference_mode()
def test_channels_last_is_read_as_it_lies():
    x, layer = noise(1, 16, 20, 30, 30), nn.Conv3d(16, 8, 3, padding=1)
    expected = layer(x)
    with fixed_partition():
        found = layer(x.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_in_place_stays_in_place():
    x = noise(1, 5, 33, 33, 33)
    expected = torch.relu(x)
    with fixed_partition():
        answer = nn.functional.relu(x, inplace=True)
    assert answer is x
    assert torch.equal(x, expected)


@torch.inference_mode()
def test_mixed_precision_keeps_its_type(threads):
    layer, x = nn.Conv3d(4, 8, 3, padding=1), noise(1, 4, 24, 24, 24)
    threads(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = layer(x)
        with fixed_partition():
            answer = layer(x)
    assert answer.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(answer, expected, rtol=0.05, atol=0.05)


def test_gradients_are_left_to_pytorch():
    layer, x = nn.Linear(32, 32), noise(2048, 32)
    with fixed_partition():
        layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_the_number_of_threads_is_as_it_was_after_an_error(threads):
    threads(3)
    with pytest.raises(ZeroDivisionError), fixed_partition(), fixed_partition():
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3
    assert ThreadPoolExecutor(1).submit(torch.get_num_threads).result() == 3


@torch.inference_mode()
def test_an_error_of_a_part_is_the_operations(threads):
    threads(2)
    with fixed_partition(), pytest.raises(RuntimeError):
        nn.functional.conv3d(noise(1, 4, 24, 24, 24), noise(8, 5, 3, 3, 3), padding=1)


def test_two_runs_at_once_do_not_disturb_each_other(threads):
    threads(2)
    layer, shape = LAYERS["3x3x3"]
    inputs = [noise(*shape) + number for number in range(4)]
    barrier = threading.Barrier(4)

    def run(x: torch.Tensor) -> torch.Tensor:
        barrier.wait()
        with torch.inference_mode(), fixed_partition():
            return layer(x)

    with torch.inference_mode(), fixed_partition():
        alone = [layer(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, inputs))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert torch.get_num_threads() == 2
