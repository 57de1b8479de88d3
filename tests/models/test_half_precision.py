"""Every network in half precision against itself in float32: no NaN, the same labels, the same images.

The weights are random, so that many pixels lie near a tie, where any rounding decides: labels are compared where the
first class leads the second by a tenth of the logits' standard deviation, which is at least four pixels of five, and
a trained network's lead is far larger (test_a_trained_network_agrees_everywhere compares all pixels). float16 has to
agree on all pixels with random weights too.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from half_convolutions import quick_halves
from tiny_networks import OTHERS, TINY, Tiny
from torch import Tensor, nn

from napari_mamba import bundles, io, models
from napari_mamba.engine.preparation.prepare import prepare

pytestmark = pytest.mark.usefixtures("one_thread")

HALF = [torch.bfloat16, torch.float16]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
LABELS, IMAGES, LEAD = 0.995, 1e-2, 0.1
SCORES = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
halves = pytest.mark.parametrize("dtype", HALF, ids=str)
devices = pytest.mark.parametrize("at", DEVICES, scope="module")


@pytest.fixture(scope="module", params=[*TINY, *OTHERS], ids=str)
def case(request: pytest.FixtureRequest) -> Tiny:
    """Every network, one after the other: what is made for it serves all of its tests."""
    return request.param


@pytest.fixture(scope="module")
def truth(case: Tiny, at: str) -> tuple[nn.Module, list[Tensor], Tensor]:
    """A network, its inputs, and what it answers to them in float32."""
    network, inputs = build(case).to(at), [x.to(at) for x in case.inputs()]
    return network, inputs, whole(case, network, inputs)


def build(case: Tiny) -> nn.Module:
    torch.manual_seed(0)
    network = models.create(case.name, logits=True, **case.arguments).eval()
    for parameter in network.parameters():
        if not parameter.any():  # a last layer that begins at zero would say nothing
            nn.init.normal_(parameter, std=0.1)
    return network


def half(case: Tiny, network: nn.Module, inputs: list[Tensor], dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(), torch.autocast(inputs[0].device.type, dtype=dtype), quick_halves():
        return case.run(network, inputs).float()


def whole(case: Tiny, network: nn.Module, inputs: list[Tensor]) -> Tensor:
    with torch.inference_mode():
        return case.run(network, inputs)


def middle(x: Tensor, size: tuple[int, ...]) -> Tensor:
    starts = [max(n - want, 0) // 2 for n, want in zip(x.shape[2:], size, strict=True)]
    return x[(..., *(slice(at, at + want) for at, want in zip(starts, size, strict=True)))]


def error(result: Tensor, truth: Tensor) -> float:
    return float((result - truth).norm() / truth.norm())


@devices
@halves
def test_half_precision_agrees_with_float32(
    case: Tiny, truth: tuple[nn.Module, list[Tensor], Tensor], dtype: torch.dtype, at: str
) -> None:
    network, inputs, truth = truth
    result = half(case, network, inputs, dtype)
    assert result.isfinite().all()
    task = models.info(case.name).task
    if task == "segmentation":
        assert truth.shape[1] > 1
        lead = truth.topk(2, dim=1).values
        sure = lead[:, 0] - lead[:, 1] > (LEAD * truth.std() if dtype == torch.bfloat16 else 0)
        assert sure.float().mean() >= 0.8
        assert (result.argmax(1) == truth.argmax(1))[sure].float().mean() >= LABELS
    elif task == "classification":
        assert error(result, truth) <= SCORES[dtype]
    else:
        assert error(result, truth) <= IMAGES


@devices
@halves
def test_no_nan_on_what_images_bring(
    case: Tiny, truth: tuple[nn.Module, list[Tensor], Tensor], dtype: torch.dtype, at: str
) -> None:
    network, inputs, _ = truth
    spiked = [x.clone() for x in inputs]
    for x in spiked:
        x.view(-1)[x.numel() // 2] = 1000.0  # metal, a hot pixel
    for hard in ([x * 255 for x in inputs], [torch.zeros_like(x) for x in inputs], spiked):
        assert half(case, network, hard, dtype).isfinite().all()


@devices
@halves
def test_a_trained_network_agrees_everywhere(dtype: torch.dtype, at: str, sample_data: Path) -> None:
    bundle = bundles.load("hippocampus-mr")
    network = bundle.networks()[0].to(at)
    data = prepare(io.read(sample_data / "hippocampus_left.nii.gz"), bundle.preparation).data
    x = torch.from_numpy(data)[None].to(at)
    if at == "cpu" and dtype == torch.float16 and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        x = middle(x, (16, 16, 16))  # convolutions take minutes where the processor has no such type
    x = nn.functional.pad(x, [side for n in reversed(x.shape[2:]) for side in (0, -n % 16)])
    with torch.inference_mode():
        truth = network(x)
        with torch.autocast(at, dtype=dtype):
            result = network(x)
    assert result.isfinite().all()
    organ = truth.argmax(1) > 0
    assert organ.any()
    assert (result.argmax(1) == truth.argmax(1))[organ].float().mean() >= LABELS
