"""Correlated series of which everything is known."""

import numpy as np


def autoregressive(persistence, n_frames, n_series, seed):
    """x_t = c x_{t-1} + noise, unit variance, stationary from the start; g = (1 + c)/(1 - c)."""
    rng = np.random.default_rng(seed)
    series = np.empty((n_frames, n_series))
    series[0] = rng.normal(size=n_series)
    for t in range(1, n_frames):
        series[t] = persistence * series[t - 1] + np.sqrt(1 - persistence**2) * rng.normal(size=n_series)
    return series
