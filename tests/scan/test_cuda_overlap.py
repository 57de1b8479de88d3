"""Which launches may start before the one ahead of them has ended, and what the driver is told; needs no GPU."""

from __future__ import annotations

import struct
from unittest import mock

import pytest
import torch

from napari_mamba.scan.cuda import runtime
from napari_mamba.scan.cuda.compiling import KERNELS

HEAD = struct.Struct("@1Q")


@pytest.fixture
def launched():
    """Launches as (how, kernel, what else the driver was given), of a device that is not there."""
    made: list[tuple] = []

    def ordinary(function, *rest):
        made.append(("ordinary", function, rest[:3]))
        return (0,)

    def early(config, function, *rest):
        made.append(("early", function, config))
        return (0,)

    with (
        mock.patch.object(runtime, "_launch", return_value=ordinary),
        mock.patch.object(runtime, "_launch_early", return_value=early),
        mock.patch.object(runtime, "_overlapping", lambda *key: key),
        mock.patch.object(runtime, "_raw_stream", return_value=7),
        mock.patch.object(runtime, "_thread", runtime._Thread()),
    ):
        runtime._thread.ready.add(0)
        yield made


def launches(count: int) -> tuple[runtime.Launch, ...]:
    made = []
    for i in range(count):
        kernel = runtime.Kernel("scan_combine.cu", "scan_combine", "1Q1i", (("STATES", i + 1),))
        kernel._functions[0] = f"function {i}"
        made.append((kernel, (i + 1, 2, 3), 64, 0))
    return tuple(made)


def test_all_launches_but_the_first_may_start_early(launched):
    with mock.patch.object(runtime, "overlaps", return_value=True):
        for _ in range(2):
            runtime.Kernel.together(launches(3), 0, HEAD, [5], b"\0" * 4)
    hows = [how for how, *_ in launched]
    assert hows == ["ordinary", "early", "early"] * 2
    assert launched[1][2] == ((2, 2, 3), 64, 0, 7), "grid, block, shared memory and the stream"
    assert launched[1][2] is launched[4][2], "made once"


def test_no_launch_starts_early_where_the_device_does_not_have_it(launched):
    with mock.patch.object(runtime, "overlaps", return_value=False):
        runtime.Kernel.together(launches(3), 0, HEAD, [5], b"\0" * 4)
    assert [how for how, *_ in launched] == ["ordinary"] * 3


@pytest.mark.parametrize(
    ("capability", "driver", "known", "expected"),
    [
        ((9, 0), 13000, True, True),
        ((8, 0), 13000, True, False),
        ((9, 0), 12020, True, False),
        ((12, 0), 13000, False, False),
    ],
)
def test_launches_overlap_where_device_driver_and_bindings_can(capability, driver, known, expected, monkeypatch):
    fake = mock.Mock(spec=["cuDriverGetVersion", *(["cuLaunchKernelEx"] if known else [])])
    fake.cuDriverGetVersion.return_value = (0, driver)
    monkeypatch.delenv("NAPARI_MAMBA_OVERLAP", raising=False)
    with (
        mock.patch.object(torch.cuda, "get_device_capability", return_value=capability),
        mock.patch.object(runtime, "bindings", return_value=(fake, None)),
    ):
        assert runtime.overlaps.__wrapped__(0) is expected
        monkeypatch.setenv("NAPARI_MAMBA_OVERLAP", "0")
        assert not runtime.overlaps.__wrapped__(0)


@pytest.mark.parametrize("source", ["scan_chunks.cu", "scan_combine.cu", "scan_backward.cu", "scan_backward_few.cu"])
def test_what_may_start_early_waits_for_the_launches_before_it(source):
    assert "wait_for_earlier();" in (KERNELS / source).read_text(encoding="utf-8")
