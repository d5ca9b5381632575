"""Sums of groups on disk: those of a fit that was killed are found again.

A fit puts the sums of the groups that are complete into a folder beside its model, `MODEL_STEM.sums.partial`, from time
to time; each group is one file, whole or not at all, that names the data and settings it was made from. The folder goes
when the fit is done, or becomes the one that another fit goes on from (`update`).
"""

import hashlib
import shutil
import time
from pathlib import Path

import numpy as np

from comitia.errors import ModelError, OutputError
from comitia.tensor_file import read_tensors, write_tensors
from comitia.training.normal_equations import KINDS, RowSums

FORMAT_VERSION = 1
SAVE_EVERY = 60.0  # s; what a kill may cost is this, and the groups under work, one for each thread


def digest(*parts):
    """SHA-256 of arrays, texts and numbers, in order."""
    found = hashlib.sha256()
    for part in parts:
        array = np.ascontiguousarray(np.frombuffer(part.encode(), np.uint8) if isinstance(part, str) else part)
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def sums_key(descriptor, structures, targets, group, columns, earlier=""):
    """What the sums of a fit depend on, as one hash: the descriptor, the columns that are kept, the structures,
    their targets and their groups.

    `earlier` is the key of the sums that these are added to.
    """
    parts = [earlier, descriptor.spline, descriptor.contraction, descriptor.radial_offset, descriptor.features, group]
    parts += [columns, descriptor.species, descriptor.cutoff, FORMAT_VERSION]
    for structure, target in zip(structures, targets, strict=True):
        atoms = structure.atoms
        parts += [atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc]
        for kind in KINDS:
            value = getattr(target, kind)
            parts += [-1.0] if value is None else [value, target.scale[kind]]
    return digest(*parts)


def group_path(folder, group):
    return Path(folder) / f"group-{group:04d}.safetensors"


def write_group(folder, group, sums, key):
    """Write the sums of one group, {kind: RowSums}."""
    tensors = {f"{kind}.{name}": array for kind, one in sums.items() for name, array in one.arrays().items()}
    write_tensors(group_path(folder, group), tensors, {"version": FORMAT_VERSION, "key": key})


def read_group(path, n_columns, key):
    """{kind: RowSums} of one group.

    Raises
    ------
    ModelError
        if the file is damaged, or was made with another key.
    """
    tensors, metadata = read_tensors(path, "the sums of a fit", "fit again")
    if metadata != {"version": FORMAT_VERSION, "key": key}:
        raise ModelError(f"{path}: belongs to other data or settings; fit again")
    names = ("triangle", "rows", "count")
    return {kind: RowSums.from_arrays(n_columns, *(tensors[f"{kind}.{name}"] for name in names)) for kind in KINDS}


class PartialSums:
    """The folder in which a fit keeps the groups that are complete, while it runs.

    Parameters
    ----------
    folder : path; made when there is something to put into it
    key : str, of `sums_key`
    """

    def __init__(self, folder, key):
        self.folder, self.key = Path(folder), key
        self.waiting, self.last = {}, time.monotonic()

    def restore(self, equations):
        """Read the groups that an earlier run of the same fit completed; remove what is of another."""
        found = []
        for path in sorted(self.folder.glob("group-*.safetensors")):
            group = int(path.stem.removeprefix("group-"))
            try:
                equations.groups[group] = read_group(path, equations.n_columns, self.key)
                found.append(group)
            except (ModelError, IndexError):
                path.unlink()
        return found

    def add(self, group, equations):
        """A group is complete: write it, and those before it, if the last time was long enough ago."""
        self.waiting[group] = equations.groups[group]
        if time.monotonic() - self.last >= SAVE_EVERY:
            self.write()

    def write(self):
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made ({error.strerror}); choose another place") from error
        for group, sums in self.waiting.items():
            write_group(self.folder, group, sums, self.key)
        self.waiting, self.last = {}, time.monotonic()

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)
