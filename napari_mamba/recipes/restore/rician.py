"""Rician noise made Gaussian of one strength, for methods that know no other: forwards, and back without bias.

The stabiliser is the integral of one over the standard deviation as a function of the mean (Foi, Noise estimation and
removal in MR imaging: the variance-stabilization approach, ISBI 2011, goes further and tunes it); the way back takes a
mean of stabilised values to the signal that has it. Everything is in units of the noise's standard deviation; beyond a
signal of `LARGEST` Rician noise is as good as Gaussian.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import special

LARGEST = 60.0


def rician_mean(signal: np.ndarray) -> np.ndarray:
    """Mean of the magnitude of a signal with noise of standard deviation 1.

    >>> float(rician_mean(np.zeros(1))[0]).__round__(3)  # of Rayleigh noise: sqrt(pi / 2)
    1.253
    """
    half = signal**2 / 4
    return np.sqrt(np.pi / 2) * ((1 + 2 * half) * special.ive(0, half) + 2 * half * special.ive(1, half))


def signal_of_mean(mean: np.ndarray) -> np.ndarray:
    """The signal whose Rician mean is `mean` (Koay and Basser, J Magn Reson 179, 2006); 0 below that of no signal."""
    signal = _signals()
    expected = rician_mean(signal)
    return np.where(mean < expected[-1], np.interp(mean, expected, signal), mean)


def stabilise(magnitude: np.ndarray) -> np.ndarray:
    """Values whose noise has a standard deviation of about 1 everywhere."""
    places, stable = _stabiliser()
    return np.where(magnitude < places[-1], np.interp(magnitude, places, stable), magnitude + stable[-1] - places[-1])


def signal_of_stable(mean: np.ndarray) -> np.ndarray:
    """The signal whose stabilised values have the mean `mean`; 0 below that of no signal."""
    signal, expected = _expected()
    return np.where(mean < expected[-1], np.interp(mean, expected, signal), mean + signal[-1] - expected[-1])


def _signals() -> np.ndarray:
    return np.concatenate([np.linspace(0, 10, 2001), np.linspace(10.05, LARGEST, 1000)])


@cache
def _stabiliser() -> tuple[np.ndarray, np.ndarray]:
    signal = _signals()
    mean = rician_mean(signal)
    spread = np.sqrt(np.maximum(signal**2 + 2 - mean**2, 1e-6))  # the second moment is signal² + 2
    rise = np.concatenate([[0.0], np.cumsum(np.diff(mean) * (1 / spread[1:] + 1 / spread[:-1]) / 2)])
    return np.concatenate([[0.0], mean]), np.concatenate([[0.0], rise + mean[0] / spread[0]])


@cache
def _expected() -> tuple[np.ndarray, np.ndarray]:
    """Signals, and the mean that their stabilised values have, by quadrature over the magnitude's density."""
    signal = _signals()
    offset = np.linspace(-8, 8, 1601)
    magnitude = np.maximum(signal[:, None] + offset, 0.0)
    density = magnitude * np.exp(-0.5 * offset**2) * special.ive(0, signal[:, None] * magnitude)
    density[signal[:, None] + offset < 0] = 0.0
    return signal, (density * stabilise(magnitude)).sum(axis=1) / density.sum(axis=1)
