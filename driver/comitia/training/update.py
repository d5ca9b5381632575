"""A fit that goes on from an earlier one: its sums are added to, and none of its structures is looked at again.

What a fit with `keep_sums` leaves in the folder `MODEL_STEM.sums` beside the model: the sums of every group, to which
stratum and fold each belongs, which structures went in, and the errors on those that were held out.

What such a fit shares with one to all of the data from the beginning: descriptor, reference energies and core are those
of the earlier model; with them, and the same regularisation, the fit to all of the data has the same normal equations.
The regularisation is chosen anew and the members are drawn anew, from all sums. What differs: structures join the
groups of their `config_type`, so the members are other halves of the data; and the factors alpha come from the new
structures, held out in their folds, together with the errors that the earlier fits made on theirs, which a fit to more
data would make a little smaller along with the spread. Errors of training are those of the new structures.
"""

import dataclasses
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np

from comitia.errors import ModelError, SettingsError, StructureError
from comitia.potential import load
from comitia.potential.source import same_baseline
from comitia.tensor_file import read_tensors, write_tensors
from comitia.training import dataset
from comitia.training.groups import deal_folds, extend_groups
from comitia.training.settings import FitSettings
from comitia.training.sums import FORMAT_VERSION, digest, group_path, read_group
from comitia.training.systems import strata_like, systems_of_groups
from comitia.training.validation import Record

REMEDY = "fit all of the data with `keep_sums: true`"
MAY_CHANGE = {"data", "keys", "validation", "test", "folds", "seed", "regularisation", "groups", "threads"}
MAY_CHANGE |= {"previous", "keep_sums", "baseline"}  # which is compared by its content
INDEX = "index.safetensors"


def sums_folder(model):
    return Path(model).with_suffix(".sums")


def _model_hash(potential):
    """What the rows and targets of every structure depend on, and which fit it was."""
    d, core = potential.descriptor, potential.core
    parts = [d.spline, d.contraction, d.radial_offset, d.features, d.species, d.cutoff, potential.reference_energies]
    parts += [dataset.TYPICAL_ERROR[kind] for kind in sorted(dataset.TYPICAL_ERROR)]
    return digest(*parts, potential.weights, *([] if core is None else [core.inner, core.outer]))


def fingerprints(structures):
    """What tells each structure from all others."""
    return [dataset.fingerprint([structure]) for structure in structures]


def keep(model, potential, partial, equations, fitted, held_out):
    """Turn the folder of partial sums into the one beside the model that another fit goes on from.

    Parameters
    ----------
    model : path of the model file
    potential : Potential in it
    partial : PartialSums
    equations : NormalEquations
    fitted : dict: `names`, `stratum` and `fold` of every group; fingerprints of the `structures` fitted to, and of
        those `held` for validation and test; `data`, what the report says of them
    held_out : list of Record, where alpha came from
    """
    partial.waiting |= dict(enumerate(equations.groups))
    partial.write()
    records = [dataclasses.asdict(record) for record in held_out]
    content = msgspec.msgpack.encode(records, enc_hook=lambda array: array.tolist())
    padded = np.frombuffer(content.ljust(-(-len(content) // 8) * 8, b"\0"), np.int64)
    about = {"version": FORMAT_VERSION, "key": partial.key, "model": _model_hash(potential), "records": len(content)}
    write_tensors(partial.folder / INDEX, {"records": padded}, about | fitted)
    folder = sums_folder(model)
    older = folder.with_suffix(".sums.old")
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        os.replace(folder, older)
    os.replace(partial.folder, folder)
    shutil.rmtree(older, ignore_errors=True)


class EarlierFit:
    """The model, the sums and the errors of the fit that another goes on from.

    Parameters
    ----------
    path : path of its model file
    settings : FitSettings of the new fit
    baseline : that of the new fit, or None

    Raises
    ------
    ModelError
        where there are no sums, or those of another model.
    SettingsError
        where the new settings describe other rows.
    """

    def __init__(self, path, settings, baseline=None):
        self.path, self.potential = Path(path), load(path)
        self._check_baseline(baseline)
        self._check_settings(settings)
        self.folder = sums_folder(path)
        index = self.folder / INDEX
        if not index.exists():
            raise ModelError(f"{index}: does not exist, so that {path} cannot be gone on from; {REMEDY}")
        tensors, self.index = read_tensors(index, "the sums of a fit", REMEDY)
        if self.index.get("version") != FORMAT_VERSION:
            raise ModelError(f"{index}: format version {self.index.get('version')}, not {FORMAT_VERSION}; {REMEDY}")
        if self.index["model"] != _model_hash(self.potential):
            raise ModelError(f"{index}: belongs to another model than {path}; {REMEDY}")
        records = msgspec.msgpack.decode(tensors["records"].tobytes()[: self.index["records"]])
        self.held_out = [
            Record(**{name: np.array(value) if isinstance(value, list) else value for name, value in record.items()})
            for record in records
        ]
        self.stratum, self.fold = np.array(self.index["stratum"], int), np.array(self.index["fold"], int)

    def _check_baseline(self, baseline):
        """The labels must be corrected for the same baseline, or for none."""
        known, given = self.potential.corrects, baseline and baseline.description(".")
        if (known is None) != (given is None) or not same_baseline(known, given):
            raise SettingsError(f"baseline: is not that of {self.path}; keep it, or fit without `previous`")

    def _check_settings(self, settings):
        default = msgspec.to_builtins(FitSettings(data="", cutoff=1.0))
        old = default | self.potential.metadata.get("settings", {})
        new = msgspec.to_builtins(settings)
        old["weights"], new["weights"] = old["weights"]["config_type"], new["weights"]["config_type"]
        for name in new:
            if name not in MAY_CHANGE and old[name] != new[name]:
                raise SettingsError(
                    f"previous: {name} is {old[name]} in {self.path} and {new[name]} here; a fit that goes on keeps "
                    "it: change it back, or fit without `previous`"
                )

    def new_among(self, structures, path):
        """The structures that this fit has not seen, of a file with all of those that it has seen, or with none."""
        known, names = set(self.index["structures"]), fingerprints(structures)
        missing = len(known - set(names))
        if 0 < missing < len(known):
            raise StructureError(
                f"{path}: {missing} of the {len(known)} structures of {self.path} are missing or have changed; give "
                "all of them or only new ones, or fit without `previous`"
            )
        new = [structure for structure, name in zip(structures, names, strict=True) if name not in known]
        if not new:
            raise StructureError(f"{path}: holds no structure that {self.path} was not fitted to; add some")
        return new

    def without_held(self, split):
        """Leave out of the training set what was kept for validation or test earlier."""
        held = set(self.index["held"])
        kept = [i for i, name in enumerate(fingerprints(split.training)) if name not in held]
        training = [split.training[i] for i in kept]
        return dataclasses.replace(split, training=training, blocks=split.blocks[kept])

    def groups(self, config_types, systems, blocks, n_folds, rng):
        """Groups of the new structures; names, strata, folds and chemical systems of all groups, these where kept."""
        known, strata = self.index.get("systems", []), config_types
        if known:
            strata = strata_like(config_types, systems, self.index["names"], known)
        group, names = extend_groups(self.index["names"], strata, blocks, rng)
        added = names[len(self.stratum) :]
        numbers = {name: 1 + self.stratum.max() + i for i, name in enumerate(dict.fromkeys(added))}
        new = np.array([numbers[name] for name in added], int)
        folds = deal_folds(new, n_folds, rng) if (self.fold >= 0).any() and len(new) else np.full(len(new), -1)
        known = systems_of_groups(systems, group, known) if known else []
        return group, names, np.concatenate([self.stratum, new]), np.concatenate([self.fold, folds]), known

    def restore(self, equations):
        """Put the sums of the earlier fit into the first groups."""
        for group in range(len(self.stratum)):
            path = group_path(self.folder, group)
            equations.groups[group] = read_group(path, equations.n_columns, self.index["key"])
