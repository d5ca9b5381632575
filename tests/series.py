"""Correlated series of which everything is known."""

import numpy as np
from scipy.signal import lfilter


def autoregressive(persistence, n_frames, n_series, seed):
    """x_t = c x_{t-1} + noise, unit variance, stationary from the start; g = (1 + c)/(1 - c)."""
    noise = np.random.default_rng(seed).normal(size=(n_frames, n_series))
    noise[1:] *= np.sqrt(1 - persistence**2)
    return lfilter([1.0], [1.0, -persistence], noise, axis=0)
