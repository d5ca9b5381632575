r"""Which structures, or which features, say most: farthest points, CUR, largest uncertainty.

Structures are rows x of a `FeatureTable`. Features are its columns; all that matters of them is X^T X, which is summed
as the rows go by. Nothing is random: the same data give the same choice.

Farthest points: Eldar et al., IEEE Trans. Image Process. 6, 1305 (1997), doi:10.1109/83.623193. CUR, one by one with
the rest made orthogonal to each choice: Imbalzano et al., J. Chem. Phys. 148, 241730 (2018), doi:10.1063/1.5024611.
"""

import dataclasses

import numpy as np
import scipy.linalg

from comitia.density import Descriptor
from comitia.errors import ModelError
from comitia.potential import load
from comitia.potential.potential import ATOMS_PER_BATCH
from comitia.progress import Stages
from comitia.structures import check_species, read_frames
from comitia.threads import default_threads
from comitia.training.feature_table import FeatureTable, square_distance

RANK = 1e-12  # share of the sum of squares below which what is left of a table is rounding


@dataclasses.dataclass
class Selection:
    """What was chosen, in the order of the choice.

    Attributes
    ----------
    indices : (n,) int array
    scores : (n,) array: distance to the nearest chosen before it, leverage (0 to 1), or uncertainty
    """

    indices: np.ndarray
    scores: np.ndarray


def _to_nearest(table, points):
    """(n_rows,) squares of the distances to the nearest of some points; infinite where there are none."""
    nearest = np.full(table.n_rows, np.inf)
    for where, rows in table.chunks():
        for point in points:
            nearest[where] = np.minimum(nearest[where], square_distance(rows, point))
    return nearest


def farthest_points(table, count, initial=(), closest=0.0, step=lambda: None):
    """Rows of which each is as far as can be from all that were chosen before.

    Parameters
    ----------
    table : FeatureTable
    count : int
    initial : rows that count as chosen, an array or a FeatureTable; without any, the first is the
        row farthest from the mean
    closest : float; nothing nearer than this to a chosen row is taken
    step : function called after every choice

    Returns
    -------
    Selection; scores are distances to the nearest row chosen before, infinite for the first of all
    """
    nearest = order = _to_nearest(table, initial)
    if not len(initial):
        mean = table.mean()
        order = table.each_row(lambda rows: square_distance(rows, mean))
    indices, scores = [], []
    while len(indices) < min(count, table.n_rows):
        best = int(np.argmax(order))
        if nearest[best] <= closest**2:  # 0 for what was chosen, and for its copies
            break
        indices.append(best)
        scores.append(np.sqrt(nearest[best]))
        point = table.row(best)
        nearest = order = np.minimum(nearest, _to_nearest(table, [point]))
        step()
    return Selection(np.array(indices, int), np.array(scores))


def most_uncertain(table, uncertainty, count, initial=(), closest=0.0, step=lambda: None):
    """Rows in the order of their uncertainty, the largest first, less those nearer than `closest` to one before.

    Parameters
    ----------
    uncertainty : (n_rows,) array
    table, count, initial, closest, step : as in `farthest_points`

    Returns
    -------
    Selection; scores are uncertainties
    """
    nearest, indices = _to_nearest(table, initial), []
    for best in np.argsort(-uncertainty, kind="stable").tolist():
        if len(indices) == count:
            break
        if nearest[best] <= closest**2:
            continue
        indices.append(best)
        if closest > 0:
            nearest = np.minimum(nearest, _to_nearest(table, [table.row(best)]))
        step()
    return Selection(np.array(indices, int), np.asarray(uncertainty)[indices])


def _leading(gram):
    """Largest eigenvalue of a positive matrix and its vector."""
    n = len(gram)
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=[n - 1, n - 1], driver="evr")
    return float(values[0]), vectors[:, 0]


def _without(gram, direction):
    """(1 − q q^T) G (1 − q q^T) for a unit vector q."""
    image = gram @ direction
    inner = float(direction @ image)
    return gram - np.outer(image, direction) - np.outer(direction, image) + inner * np.outer(direction, direction)


def cur_rows(table, count, initial=(), step=lambda: None):
    """Rows of the largest leverage on the first principal direction, all made orthogonal to each choice.

    Parameters
    ----------
    table, count, initial, step : as in `farthest_points`

    Returns
    -------
    Selection; scores are leverages. It ends where what is left of the rows is rounding: a copy is never chosen.
    """
    gram, chosen = table.gram(), np.zeros((0, table.width))
    total = np.trace(gram)
    indices, scores = [], []

    def take(row):
        nonlocal gram, chosen
        left = row
        for _ in range(2):  # twice is enough (Kahan)
            left = left - chosen.T @ (chosen @ left)
        if np.linalg.norm(left) > 1e-8 * np.linalg.norm(row):
            left = left / np.linalg.norm(left)
            chosen = np.vstack([chosen, left])
            gram = _without(gram, left)

    for row in initial:
        take(row)
    while len(indices) < min(count, table.n_rows) and len(chosen) < table.width:
        value, direction = _leading(gram)
        if value <= RANK * total:
            break
        for _ in range(2):
            direction -= chosen.T @ (chosen @ direction)
        leverage = table.each_row(lambda rows, direction=direction: np.einsum("ij,j->i", rows, direction) ** 2) / value
        leverage[indices] = 0.0
        best = int(np.argmax(leverage))
        indices.append(best)
        scores.append(leverage[best])
        take(table.row(best))
        step()
    return Selection(np.array(indices, int), np.array(scores))


def cur_columns(gram, count, step=lambda: None):
    """Columns of the largest leverage on the first principal direction, all made orthogonal to each choice.

    Parameters
    ----------
    gram : (n, n) array, X^T X
    count, step : as in `farthest_points`

    Returns
    -------
    Selection; scores are leverages
    """
    gram, indices, scores = gram.copy(), [], []
    total = np.trace(gram)
    while len(indices) < min(count, len(gram)):
        value, direction = _leading(gram)
        if value <= RANK * total:
            break
        leverage = direction**2
        leverage[indices] = 0.0
        best = int(np.argmax(leverage))
        indices.append(best)
        scores.append(leverage[best])
        gram -= np.outer(gram[:, best], gram[best]) / gram[best, best]
        gram[best] = gram[:, best] = 0.0
        step()
    return Selection(np.array(indices, int), np.array(scores))


def farthest_columns(gram, count, step=lambda: None):
    """Columns of which each is as far as can be from all that were chosen before, the longest first.

    Parameters
    ----------
    gram, count, step : as in `cur_columns`

    Returns
    -------
    Selection; scores are distances to the nearest column chosen before, infinite for the first
    """
    square, nearest = np.diag(gram), np.full(len(gram), np.inf)
    order, indices, scores = square, [], []
    while len(indices) < min(count, len(gram)):
        best = int(np.argmax(order))
        if nearest[best] <= RANK * square.max():
            break
        indices.append(best)
        scores.append(np.sqrt(nearest[best]))
        nearest = order = np.minimum(nearest, np.maximum(square + square[best] - 2 * gram[best], 0.0))
        step()
    return Selection(np.array(indices, int), np.array(scores))


def structure_features(structures, descriptor, n_threads=None):
    """Mean features of the atoms of every structure, each divided by the scale of its prior: (n, width) array."""
    scale = np.zeros(descriptor.n_features)  # the constant says how many atoms there are of each species: left out
    scale[descriptor.features[:, 0] > 0] = 1 / descriptor.smoothness[descriptor.features[:, 0] > 0]
    n_atoms = np.array([[len(atoms)] for atoms in structures])
    return descriptor.sums(structures, n_threads) * np.tile(scale, descriptor.n_species) / n_atoms


def _batches(path, species, step):
    """Frames of a file in lists of at most `ATOMS_PER_BATCH` atoms, or of one frame."""
    batch, n_atoms = [], 0
    for frame, (atoms, _) in enumerate(read_frames(path)):
        check_species(atoms, species, f"{path}, frame {frame}")
        if batch and n_atoms + len(atoms) > ATOMS_PER_BATCH:
            yield batch
            batch, n_atoms = [], 0
        batch.append(atoms)
        n_atoms += len(atoms)
        step()
    yield batch


def select(
    path,
    count,
    method="fps",
    model=None,
    cutoff=5.0,
    initial=None,
    closest=0.01,
    features=False,
    n_threads=None,
    stages=None,
):
    """Choose structures of a file, or features.

    Parameters
    ----------
    path : extended XYZ file of candidates
    count : int
    method : "fps", "cur" or "uncertain"
    model : path of a model file: its features, and for "uncertain" its committee; or None
    cutoff : float, Å, of the features where there is no model
    initial : extended XYZ file of structures that count as chosen, or None
    closest : float, in units of the spread of the candidates
    features : bool, whether features are chosen
    n_threads : int
    stages : Stages, to show progress, or None

    Returns
    -------
    dict: `indices` of frames or features in the order of the choice, `scores` with their `unit` (None for the first of
    all), how many there are to choose `of`, and for features the rows of the feature list
    """
    stages = stages or Stages(False)
    if model is not None:
        potential = load(model)
        descriptor = potential.descriptor
        if method == "uncertain" and potential.n_members < 2:
            raise ModelError(
                f"{model}: has a single member; --method uncertain needs a committee: fit with `members: 16`"
            )
    else:
        species = {int(z) for name in (path, initial) if name for atoms, _ in read_frames(name) for z in atoms.numbers}
        descriptor = Descriptor.build(species, cutoff)
    n_threads = n_threads or default_threads()
    uncertainty = []
    with FeatureTable(descriptor.width) as table, FeatureTable(descriptor.width) as chosen:
        with stages.stage("features", None) as step:
            for batch in _batches(path, descriptor.species, step):
                table.append(structure_features(batch, descriptor, n_threads))
                if method == "uncertain":
                    found = potential.compute(batch, members=True)
                    uncertainty += [float(np.max(prediction.force_uncertainty)) for prediction in found]
            if initial:
                for batch in _batches(initial, descriptor.species, step):
                    chosen.append(structure_features(batch, descriptor, n_threads))
        with stages.stage(method, count) as step:
            report = {"data": str(path), "method": method, "of": table.n_rows}
            if features:
                gram = table.gram(descriptor.n_features)
                found = (farthest_columns if method == "fps" else cur_columns)(gram, count, step)
                report |= {"of": descriptor.n_features, "features": descriptor.features[found.indices]}
            elif method == "cur":
                found = cur_rows(table, count, chosen, step)
            else:
                spread = table.spread()
                if method == "fps":
                    found = farthest_points(table, count, chosen, closest * spread, step)
                    found.scores /= spread if spread > 0 else 1.0
                else:
                    found = most_uncertain(table, np.array(uncertainty), count, chosen, closest * spread, step)
    unit = {"fps": "spread of the data", "cur": "leverage", "uncertain": "eV/Å"}[method]
    scores = [float(score) if np.isfinite(score) else None for score in found.scores]
    return {**report, "indices": found.indices, "scores": scores, "unit": "" if features and method == "fps" else unit}


def frames_as_they_stand(path, indices):
    """Text of the chosen frames of a file, in the order of `indices`."""
    wanted = set(np.asarray(indices).tolist())
    texts = {frame: text for frame, (_, text) in enumerate(read_frames(path)) if frame in wanted}
    return "".join(
        texts[frame] if texts[frame].endswith("\n") else texts[frame] + "\n" for frame in np.asarray(indices)
    )
