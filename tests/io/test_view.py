"""Views of what is on disk, against NumPy's own indexing."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mamba.io.lazy.view import DiskView

VALUES = np.random.default_rng(0).integers(0, 1000, (2, 5, 6, 7))


class Source:
    """An array that counts what is read of it."""

    shape, dtype, chunks = VALUES.shape, VALUES.dtype, (1, 4, 4, 4)

    def __init__(self):
        self.read = 0

    def __getitem__(self, key):
        found = VALUES[key]
        self.read += found.size
        return found


def steps(rng: np.random.Generator, array: np.ndarray):
    """Some keys, and some orders of axes."""
    for _ in range(rng.integers(1, 5)):
        if rng.random() < 0.3 and array.ndim > 1:
            yield "turn", tuple(int(axis) for axis in rng.permutation(array.ndim))
            return
        key = []
        for size in array.shape:
            kind = rng.random()
            if kind < 0.25 and size:
                key.append(int(rng.integers(-size, size)))
            elif kind < 0.5:
                key.append(slice(None))
            else:
                start, stop = (int(n) for n in rng.integers(-size - 1, size + 2, 2))
                key.append(slice(start, stop, int(rng.choice([1, 1, 2, 3, -1, -2]))))
        if rng.random() < 0.2:
            key = [None, *key]
        if rng.random() < 0.3:
            key = [..., *key[len(key) // 2 :]]
        yield "cut", tuple(key)
        return


@pytest.mark.parametrize("seed", range(200))
def test_a_view_is_what_numpy_gives(seed):
    rng, array, view = np.random.default_rng(seed), VALUES, DiskView(Source())
    for _ in range(4):
        for what, how in steps(rng, array):
            array = array.transpose(how) if what == "turn" else array[how]
            view = view.transpose(how) if what == "turn" else view[how]
        if np.ndim(array) == 0 or None in view._order:
            break
    np.testing.assert_array_equal(np.asarray(view), array)


def test_nothing_is_read_before_it_is_an_array_and_no_more_than_is_wanted():
    source = Source()
    view = DiskView(source)[1].transpose((2, 1, 0))[None, 3, :4, 1:3]
    assert (view.shape, view.chunks, len(view)) == ((1, 4, 2), (1, 4, 2), 1)
    assert source.read == 0
    np.testing.assert_array_equal(view, VALUES[1].transpose((2, 1, 0))[None, 3, :4, 1:3])
    assert source.read == 8
    assert DiskView(source)[0, 1, 2, 3] == VALUES[0, 1, 2, 3]
    assert np.asarray(view.astype("f4")).dtype == np.float32


def test_an_index_outside_is_refused():
    with pytest.raises(IndexError):
        DiskView(Source())[2]
