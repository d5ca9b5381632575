"""The model file: safetensors, with every number a tensor, one metadata key of JSON, and a checksum at the end.

Version 1 grows by additions that older files lack: features of order 4, whose rows fill the columns that were free;
radial functions that depend on the species of the neighbour, a `radial_offset` with a row for each of them; the
variance of factors of learned ones, for a fit that goes on from this one.
"""

import numpy as np

from comitia.density import Descriptor
from comitia.density.couplings import intermediates
from comitia.density.features import MAX_ORDER, couples
from comitia.errors import ModelError
from comitia.potential.baselines import ZBL
from comitia.potential.potential import Potential
from comitia.tensor_file import read_tensors, write_tensors

FORMAT_VERSION = 1
HEAVIEST = 118  # atomic number
UPGRADES = {}  # version -> function that turns the tensors and metadata of that version into those of the next

SECTIONS = ("settings", "data", "errors", "versions")  # of the metadata of a fit
TENSORS = {  # name -> kind and number of dimensions, or numbers that it may be
    "species": (np.integer, 1),
    "cutoff": (np.floating, 0),
    "contraction": (np.floating, 2),
    "spline": (np.floating, 3),
    "n_radial": (np.integer, 0),
    "l_max": (np.integer, 0),
    "radial_offset": (np.integer, (1, 2)),
    "features": (np.integer, 2),
    "weights": (np.floating, 2),
    "reference_energies": (np.floating, 1),
    "alpha": (np.floating, 1),
    "recentred": (np.integer, 0),
}
OPTIONAL = {  # absent from files that know nothing of it
    "force_floor": (np.floating, 0),
    "factor_variance": (np.floating, 3),
}


def save(potential, path):
    """Write `potential` to `path`."""
    d = potential.descriptor
    tensors = {
        "format_version": np.array(FORMAT_VERSION, np.int64),
        "species": np.asarray(d.species, np.int64),
        "cutoff": np.array(d.cutoff),
        "contraction": np.ascontiguousarray(d.contraction, float),
        "spline": np.ascontiguousarray(d.spline, float),
        "n_radial": np.array(d.n_radial, np.int64),
        "l_max": np.array(d.l_max, np.int64),
        "radial_offset": np.asarray(d.radial_offset, np.int32),
        "features": np.ascontiguousarray(d.features, np.int32),
        "weights": np.ascontiguousarray(potential.weights),
        "reference_energies": potential.reference_energies,
        "alpha": np.array([potential.alpha_energy, potential.alpha_forces]),
        "force_floor": np.array(potential.force_floor),
        "recentred": np.array(int(potential.recentred), np.int64),
    }
    if d.factor_variance is not None:
        tensors["factor_variance"] = np.array(d.factor_variance[:, : d.l_max + 1], float)
    if potential.core is not None:
        tensors["core_inner"] = np.ascontiguousarray(potential.core.inner, float)
        tensors["core_outer"] = np.ascontiguousarray(potential.core.outer, float)
    write_tensors(path, tensors, potential.metadata)


def _read(path):
    """Tensors and metadata of a file whose checksum is right."""
    tensors, metadata = read_tensors(path, "a comitia model", "fit it again")
    if not all(isinstance(metadata[name], dict) for name in SECTIONS if name in metadata):
        raise ModelError(f"{path}: not a comitia model (its metadata are no mapping); fit it again")
    return tensors, metadata


def _couples(row):
    """Whether the angular momenta of a feature couple to a scalar, through its L at order 4."""
    ls = row[2 : 2 * row[0] + 1 : 2]
    return couples(ls) and (row[0] < 4 or row[9] in intermediates(*ls))


def _sound_variance(tensors, shape):
    variance = tensors.get("factor_variance")
    return variance is None or (variance.shape == shape and np.all((variance > 0) & (variance <= 1)))


def _check(path, tensors):
    """Refuse tensors of the wrong kind or shape, and indices that lead outside."""
    for name, (kind, n_dimensions) in (TENSORS | {n: OPTIONAL[n] for n in OPTIONAL if n in tensors}).items():
        tensor = tensors.get(name)
        if tensor is None or tensor.ndim not in np.atleast_1d(n_dimensions) or not np.issubdtype(tensor.dtype, kind):
            raise ModelError(f"{path}: tensor {name!r} is missing or has the wrong type or shape; fit the model again")
        if not np.all(np.isfinite(tensor)):
            raise ModelError(f"{path}: tensor {name!r} holds a number that is not finite; fit the model again")
    features, l_max, n_radial = tensors["features"], int(tensors["l_max"]), int(tensors["n_radial"])
    n_channels, n_species = tensors["contraction"].shape
    order = features[:, 0] if features.shape[1:] == (10,) else np.array([-1])
    used = np.arange(4) < order[:, None]
    q, l = (features[:, 1:9:2], features[:, 2:10:2]) if features.shape[1:] == (10,) else (order, order)
    sound = (
        np.all((order >= 0) & (order <= MAX_ORDER))
        and 0 <= l_max <= 8
        and n_radial > 0
        and np.all(~used | ((q >= 0) & (q < n_channels * n_radial) & (l >= 0) & (l <= l_max)))
        and all(_couples(row) for row in features[features[:, 0] > 0].tolist())
        and tensors["radial_offset"].shape in ((l_max + 1,), (n_species, l_max + 1))
        and np.all(
            (tensors["radial_offset"] >= 0) & (tensors["radial_offset"] + n_radial <= tensors["spline"].shape[2])
        )
        and tensors["spline"].shape[1] == 6
        and len(tensors["spline"]) > 0
        and len(tensors["species"]) == n_species > 0
        and 0 < tensors["species"][0] <= tensors["species"][-1] <= HEAVIEST
        and np.all(np.diff(tensors["species"]) > 0)
        and len(tensors["weights"]) > 0
        and len(features) > 0
        and tensors["cutoff"] > 0
        and len(tensors["alpha"]) == 2
        and np.all(tensors["alpha"] > 0)
        and tensors.get("force_floor", 0.0) >= 0
        and _sound_variance(tensors, (n_channels, l_max + 1, n_radial))
        and ("core_inner" in tensors) == ("core_outer" in tensors)
    )
    if not sound:
        raise ModelError(f"{path}: the tensors do not fit together; fit the model again")


def load(path, precision="float64"):
    """The potential in a model file.

    Parameters
    ----------
    path : str or Path
    precision : "float64" or "float32", of the kernel; see `Potential`

    Raises
    ------
    ModelError
        for a file that cannot be read, is damaged or cut short, is of a version that cannot be upgraded, or does
        not hold together.
    """
    tensors, metadata = _read(path)
    version = tensors.get("format_version")
    if version is None or version.shape != () or not np.issubdtype(version.dtype, np.integer):
        raise ModelError(f"{path}: does not say its format version; fit it with `comitia fit`")
    version = int(version)
    while version in UPGRADES and version < FORMAT_VERSION:
        tensors, metadata = UPGRADES[version](tensors, metadata)
        version += 1
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: format version {version}; this comitia reads version {FORMAT_VERSION}: "
            "use the comitia that wrote it, or fit it again"
        )
    _check(path, tensors)
    descriptor = Descriptor(
        tensors["species"],
        float(tensors["cutoff"]),
        tensors["contraction"],
        tensors["spline"],
        int(tensors["n_radial"]),
        int(tensors["l_max"]),
        tensors["radial_offset"],
        tensors["features"],
        tensors.get("factor_variance"),
    )
    try:
        core = None
        if "core_outer" in tensors:
            core = ZBL(tensors["species"], tensors["core_inner"], tensors["core_outer"])
        return Potential(
            descriptor,
            tensors["weights"],
            tensors["reference_energies"],
            core,
            *tensors["alpha"],
            recentred=bool(tensors["recentred"]),
            metadata=metadata,
            force_floor=tensors.get("force_floor", 0.0),
            precision=precision,
        )
    except (ModelError, KeyError) as error:
        raise ModelError(f"{path}: the tensors do not fit together ({error}); fit the model again") from error
