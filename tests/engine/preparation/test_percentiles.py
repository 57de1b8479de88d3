"""Percentiles of millions of values, to the bit of NumPy's."""

from __future__ import annotations

import numpy as np

from napari_mamba.engine.preparation.normalising import percentiles


def test_they_are_those_of_numpy_to_the_bit():
    random, n = np.random.default_rng(0), 100_003
    kinds = {
        "normal": random.normal(size=n),
        "mostly empty": np.where(random.random(n) < 0.6, 0, 100 * random.normal(size=n)),
        "whole numbers": random.integers(0, 255, n),
        "sorted": np.sort(random.normal(size=n)),
        "a period": np.where(np.arange(n) % 3 == 0, 5, random.normal(size=n)),
        "one value": np.zeros(n),
        "nearly one value": np.r_[np.zeros(n - 3), 1, 2, 3],
        "NaN": np.r_[0, np.nan, random.normal(size=n - 2)],
        "few": random.normal(size=50),
    }
    for kind, values in kinds.items():
        some = np.repeat(values.astype(np.float32), 2)[::2]  # not contiguous
        for percents in ((0.5, 99.5), (0, 100), (25.0, 99.99)):
            found, wanted = percentiles(some, percents), np.percentile(some, percents)
            assert found.dtype == wanted.dtype, kind
            assert np.array_equal(found, wanted, equal_nan=True), (kind, percents)
