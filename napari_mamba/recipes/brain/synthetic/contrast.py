"""How bright each group of tissues is: random, or jittered about a known contrast."""

from __future__ import annotations

import numpy as np

from napari_mamba.recipes.brain.structures import CONTRASTS, FLUIDS, GREYS, HEAD, NAMES, WHITES

_AT = {name: i for i, name in enumerate(NAMES)}
_HEAD = np.array([name in HEAD for name in NAMES])
KINDS = ("t1", "t2", "flair", "random")
SHARES = (0.40, 0.16, 0.18, 0.26)
"""How often each is drawn: T1 most, since most scans that people segment are; FLAIR more than T2, as it is harder."""


def draw(random: np.random.Generator, kind: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of two clusters a group, (2, G) float32 each, white matter or fluid near 1.

    The second cluster is what a smooth random field mixes in: nearly the same inside the brain, another tissue outside
    of it, where one label stands for muscle, fat and vessels.

    Parameters
    ----------
    random : numpy.random.Generator
    kind : str
        One of `KINDS`; drawn by `SHARES` if empty.
    """
    kind = kind or str(random.choice(KINDS, p=SHARES))
    mean = _random(random) if kind == "random" else _known(random, kind)
    other = mean * random.normal(1, random.uniform(0.01, 0.06), mean.shape)
    other[_HEAD] = np.where(random.random(_HEAD.sum()) < 0.7, random.uniform(0, 1.2, _HEAD.sum()), mean[_HEAD])
    if kind == "t1":
        other[_AT["skull"]] = mean[_AT["skull"]] * random.uniform(0.5, 2)
    _air(random, mean, other)
    strength = random.uniform(0.0, 0.08) if kind == "random" else random.uniform(0.0, 0.06)
    deviation = strength * random.uniform(0.3, 1.5, (2, len(mean)))
    deviation[:, _HEAD] *= 2
    deviation[:, _AT["air"]] = random.uniform(0, 0.03) * (random.random() < 0.5)
    return np.stack([mean, other]).astype(np.float32).clip(0), deviation.astype(np.float32)


def _known(random: np.random.Generator, kind: str) -> np.ndarray:
    mean = CONTRASTS[kind].copy()
    brain = ~_HEAD
    top = 1.0
    # Contrast as a whole: flatter in old people and at low flip angles, steeper in MP-RAGE.
    mean[brain] = top - (top - mean[brain]) * random.uniform(0.62, 1.25)
    _shift(random, mean, FLUIDS, 0.06)
    _shift(random, mean, GREYS, 0.05)
    _shift(random, mean, WHITES, 0.03)
    mean[brain] *= random.normal(1, 0.045, brain.sum())
    mean[_AT["lesion"]] += random.normal(0, 0.12)
    mean[_AT["plexus"]] += random.normal(0, 0.2)
    mean[_HEAD] *= np.exp(random.normal(0, 0.35, _HEAD.sum()))
    return mean.clip(0)


def _random(random: np.random.Generator) -> np.ndarray:
    mean = random.uniform(0.02, 1.0, len(NAMES))
    if random.random() < 0.6:
        _tie(random, mean, FLUIDS, 0.04)
    if random.random() < 0.35:
        _tie(random, mean, GREYS, 0.05)
    if random.random() < 0.35:
        _tie(random, mean, WHITES, 0.04)
    if random.random() < 0.4:
        mean[_AT["plexus"]] = mean[_AT["ventricle"]] * random.uniform(0.7, 1.3)
    if random.random() < 0.4:
        mean[_AT["lesion"]] = mean[_AT["white"]] * random.uniform(0.8, 1.2)
    return mean


def _shift(random: np.random.Generator, mean: np.ndarray, names: tuple[str, ...], deviation: float) -> None:
    mean[[_AT[name] for name in names]] += random.normal(0, deviation)


def _tie(random: np.random.Generator, mean: np.ndarray, names: tuple[str, ...], deviation: float) -> None:
    at = [_AT[name] for name in names]
    mean[at] = mean[at[0]] + random.normal(0, deviation, len(at))


def _air(random: np.random.Generator, mean: np.ndarray, other: np.ndarray) -> None:
    """Air is black in most scans, grey noise in some, and now and then as bright as tissue."""
    kind = random.random()
    level = 0.0 if kind < 0.55 else random.uniform(0, 0.12) if kind < 0.95 else random.uniform(0, 0.6)
    mean[_AT["air"]] = other[_AT["air"]] = level
