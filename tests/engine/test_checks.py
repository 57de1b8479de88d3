"""Wrong input: an error where a run makes no sense, a warning where its answer may be wrong."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from engine_fakes import Apply, fake_bundle, two_classes

from napari_mamba.bundles import Tile
from napari_mamba.engine import RunOptions, available_devices, run_to_end
from napari_mamba.engine.suitability import examine
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume


def bundle(*modalities: str, tile: int = 16):
    return fake_bundle(Apply(two_classes), classes=2, modalities=modalities or ("MR",), tile=Tile((tile,) * 3))


def image(rng, low=0.0, high=100.0, shape=(1, 24, 24, 24)):
    return rng.uniform(low, high, shape).astype(np.float32)


def warnings_of(volume, bundle):
    events = []
    result = run_to_end(volume, bundle, on_progress=events.append)
    assert set(result.warnings) <= {event.message for event in events}
    return result.warnings


def test_ordinary_mr_raises_no_doubt(rng):
    assert warnings_of(Volume(image(rng)), bundle()) == []


def test_wrong_number_of_channels(rng):
    with pytest.raises(InputError, match=r"takes 2 channels \(channel 0, channel 1\), this image has 1"):
        run_to_end(Volume(image(rng)), bundle("MR", "MR"))


@pytest.mark.parametrize(("value", "said"), [(0.0, "all zeros"), (7.0, "7 everywhere")])
def test_constant_channel(rng, value, said):
    data = image(rng, shape=(2, 24, 24, 24))
    data[1] = value
    with pytest.raises(InputError, match=f"channel 1 is {said}"):
        run_to_end(Volume(data), bundle("MR", "MR"))


def test_nan_is_counted_and_refused_or_replaced_on_request(rng):
    data = image(rng)
    data[0, 0, 0, :3] = [np.nan, np.inf, -np.inf]
    with pytest.raises(InputError, match="3 values of the image are NaN or infinite"):
        run_to_end(Volume(data), bundle())
    result = run_to_end(Volume(data), bundle(), RunOptions(replace_nonfinite=0.0))
    assert any("3 NaN or infinite values of the image replaced by 0" in w for w in result.warnings)
    assert np.isnan(data[0, 0, 0, 0]), "the caller's array was changed"


def test_complex_values(rng):
    with pytest.raises(InputError, match="real numbers"):
        run_to_end(Volume(image(rng) * 1j), bundle())


def test_ct_given_to_an_mr_bundle(rng):
    data = np.where(image(rng) < 50, -1000, image(rng)).astype(np.int16)
    (warning,) = warnings_of(Volume(data), bundle())
    assert "look like CT" in warning
    assert warnings_of(Volume(data), bundle("CT")) == []


def test_ct_is_not_restored_as_mr(rng):
    """An image that comes back would look like a better one; what the window asks beforehand says the same."""
    data = np.where(image(rng) < 50, -1000, image(rng)).astype(np.int16)
    restores = fake_bundle(Apply(lambda x: x), task="restoration", activation="none", modalities=("MR",))
    with pytest.raises(InputError, match="restores MR, but values down to -1000 look like CT"):
        run_to_end(Volume(data), restores)
    assert any("look like CT" in refusal for refusal in examine(Volume(data), restores).refusals)


def test_negative_mr_values(rng):
    (warning,) = warnings_of(Volume(image(rng, -3, 3)), bundle())
    assert "goes down to -2.9" in warning


def test_ct_with_an_offset(rng):
    (warning,) = warnings_of(Volume(image(rng, 0, 2000)), bundle("CT"))
    assert "1024" in warning


def test_missing_voxel_size(rng):
    (warning,) = warnings_of(Volume(image(rng), units="pixel"), bundle())
    assert "no voxel size" in warning


@pytest.mark.parametrize(
    ("spacing", "said"), [(0.001, "Voxels of"), (30.0, "Voxels of"), (0.2, "field of view"), (14.0, None)]
)
def test_voxel_size_or_view_no_scan_has(rng, spacing, said):
    found = warnings_of(Volume(image(rng), affine=np.diag([spacing, spacing, spacing, 1])), bundle())
    assert (len(found) == 1 and said in found[0]) if said else found == []


def test_volume_much_smaller_than_a_tile(rng):
    (warning,) = warnings_of(Volume(image(rng)), bundle(tile=64))
    assert "24x24x24" in warning
    assert "64x64x64" in warning


def test_array_like_input_is_read(rng):
    import zarr

    data = zarr.array(image(rng))
    result = run_to_end(Volume(data), bundle())
    assert result.labels.shape == (24, 24, 24)


def test_importing_the_engine_does_not_import_torch():
    code = "import sys, napari_mamba.engine as e; e.RunOptions(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_devices_can_be_listed():
    assert available_devices()[:2] == ["auto", "cpu"]
