"""`models --architectures` tells what the page of the networks tells."""

from __future__ import annotations

import json

from napari_mamba import models
from napari_mamba.models.measured import measured


def test_architectures_tell_parameters_checks_and_times(command):
    told = {entry["name"]: entry for entry in json.loads(command("models", "--architectures", "--json").out)}
    assert told["umamba_enc"]["vectors"]["UMambaEnc_3d_v2"]["parameters"] == 42077199
    assert {name: set(entry["vectors"]) for name, entry in told.items()} == {
        model.name: set(model.vectors) for model in models.list_models()
    }
    shown = command("models", "--architectures").out
    line = next(line.split() for line in shown.splitlines() if "LightMUNet_3d" in line)
    one = measured()["LightMUNet_3d"]
    assert line[:4] == ["lightm_unet", "LightMUNet_3d", "5015766", "1x1x32x48x48"]
    assert [float(cell) if cell != "-" else None for cell in line[4:]] == [one.relative_l2, one.cpu_seconds]
