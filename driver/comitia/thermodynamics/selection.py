"""Which frames of a trajectory go to a reference that is too dear for all of them."""

import numpy as np

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics.time_series import as_series, equilibration, statistical_inefficiency


def uncorrelated_frames(series, n_frames=None, first=None):
    """Frames that say something new, evenly spaced.

    Parameters
    ----------
    series : (n_frames,) or (n_frames, n_series) array
        what is to be uncorrelated: the energy of the model, and the observables
    n_frames : int, at most so many; by default as many as are independent
    first : int, frames before it are left out; by default the approach to equilibrium of the first series

    Returns
    -------
    (n_chosen,) integer array, increasing
    """
    series = as_series(series, "the time series").reshape(len(series), -1)
    if n_frames is not None and n_frames < 1:
        raise UsageError(f"{n_frames} frames were asked for; give 1 or more")
    if first is None:
        first = equilibration(series[:, 0])[0]
    rest = series[first:]
    spacing = float(np.max(statistical_inefficiency(rest)))
    n_independent = max(1, int(len(rest) / spacing))
    count = n_independent if n_frames is None else min(n_frames, n_independent)
    return first + ((np.arange(count) + 0.5) * len(rest) / count).astype(int)


def stratified_frames(variable, n_frames, edges):
    """As many frames from every bin of a collective variable, evenly spaced in time, and what each stands for.

    Parameters
    ----------
    variable : (n_frames,) array
    n_frames : int, in all
    edges : (n_bins + 1,) increasing array; frames outside are left out

    Returns
    -------
    indices : (n_chosen,) integer array, increasing
    weights : (n_chosen,) array, frames of the trajectory for every one that was chosen
    """
    variable = as_series(variable, "the collective variable")
    if variable.ndim != 1:
        raise SeriesError(f"the collective variable has shape {variable.shape}; give one value for each frame")
    edges = np.asarray(edges, dtype=float)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise UsageError("edges of the bins must be at least two increasing numbers")
    places = np.digitize(variable, edges) - 1
    places[variable == edges[-1]] = len(edges) - 2
    inside = [np.flatnonzero(places == i) for i in range(len(edges) - 1)]
    inside = [frames for frames in inside if len(frames)]
    if not inside or n_frames < len(inside):
        raise UsageError(f"{n_frames} frames for {len(inside)} bins that are visited; give one for each at least")
    sizes = np.array([len(frames) for frames in inside])
    counts = np.zeros(len(inside), dtype=int)
    for _ in range(min(n_frames, sizes.sum())):  # the next one goes to the bin that has least
        counts[np.argmin(np.where(counts < sizes, counts, n_frames + 1))] += 1
    indices, weights = [], []
    for frames, count in zip(inside, counts, strict=True):
        indices.append(frames[((np.arange(count) + 0.5) * len(frames) / count).astype(int)])
        weights.append(np.full(count, len(frames) / count))
    indices, weights = np.concatenate(indices), np.concatenate(weights)
    order = np.argsort(indices)
    return indices[order], weights[order]
