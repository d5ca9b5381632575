"""Frames of a sample whose reference energies are computed: chosen from a run, or kept in a file from an earlier one.

In such a file every structure is one bead, and says in its comment line

    sample="quantum" step=5700 bead=12 temperature=300.0 model_energy=-4160.1 model_sha256=... NAME_energy=...

with energies in eV: that of the model that sampled it, and that of a reference NAME where it was computed. Of a frame
all beads are there.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from comitia.errors import SeriesError
from comitia.files import file_hash
from comitia.structures import read_frames

MODEL_TOLERANCE = 1e-6
"""eV per structure; a stored model energy and the same model on the stored positions, rounding apart."""

KEYS = ("sample", "step", "bead", "temperature", "model_energy", "model_sha256")

STORED_TOLERANCE = 1e-5
"""eV per structure; a stored reference energy and the same one by another build of the same program."""


@dataclass(frozen=True)
class ReferenceFrames:
    """Frames of one sample and the energies of the model that sampled them.

    Attributes
    ----------
    name : of the sample, for messages
    temperature : float, K
    numbers : (n_atoms,) atomic numbers
    pbc : (3,) booleans
    steps : (n_frames,) integers
    positions : (n_frames, n_beads, n_atoms, 3) array, Å
    cells : (n_frames, 3, 3) array, Å, lattice vectors in rows
    member_energies : (n_frames, n_beads, n_members) array, eV, on these very positions
    stored : reference energies by name, (n_frames, n_beads) arrays, eV; empty for the frames of a run
    """

    name: str
    temperature: float
    numbers: np.ndarray
    pbc: np.ndarray
    steps: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    member_energies: np.ndarray
    stored: dict

    @property
    def n_beads(self):
        return self.positions.shape[1]

    @property
    def model_energies(self):
        """Energies of the committee's mean, bead by bead, (n_frames, n_beads), eV."""
        return self.member_energies.mean(axis=2)

    def structures(self):
        """`ase.Atoms` of every bead of every frame, frame by frame."""
        cells = self.cells if self.pbc.any() else np.zeros_like(self.cells)
        return [
            Atoms(self.numbers, bead, cell=cell, pbc=self.pbc)
            for frame, cell in zip(self.positions, cells, strict=True)
            for bead in frame
        ]

    def without(self, missing):
        """The frames whose `missing` is False."""
        kept = {name: getattr(self, name) for name in ("name", "temperature", "numbers", "pbc")}
        arrays = ("steps", "positions", "cells", "member_energies")
        stored = {name: energies[~missing] for name, energies in self.stored.items()}
        return ReferenceFrames(**kept, **{name: getattr(self, name)[~missing] for name in arrays}, stored=stored)


def evaluate_members(potential, numbers, pbc, positions, cells):
    """Energies of all members, (n_frames, n_beads, n_members), eV, of (n_frames, n_beads, n_atoms, 3) positions."""
    n_frames, n_beads = positions.shape[:2]
    cells = np.repeat(cells, n_beads, axis=0)
    found = potential.evaluator(numbers, pbc).compute(
        np.ascontiguousarray(positions).reshape(-1, *positions.shape[2:]), cells
    )
    return found.member_energies.reshape(n_frames, n_beads, -1)


def chosen_frames(run, count, potential):
    """At most `count` frames of a run, far enough from each other to be uncorrelated.

    Parameters
    ----------
    run : comitia.study.observables.SampledRun
    count : int
    potential : the comitia.Potential that sampled it

    Returns
    -------
    ReferenceFrames
    """
    from comitia.thermodynamics import uncorrelated_frames

    if run.bias is not None:
        raise SeriesError(f"perturb.frames: sample {run.name} is biased; perturb one that was sampled without a bias")
    chosen = uncorrelated_frames(run.member_energies.mean(axis=1), count)
    positions, cells = run.positions[chosen], run.cells[chosen]
    return ReferenceFrames(
        name=run.name,
        temperature=run.temperature,
        numbers=run.numbers,
        pbc=run.pbc,
        steps=run.steps[chosen],
        positions=positions,
        cells=cells,
        member_energies=evaluate_members(potential, run.numbers, run.pbc, positions, cells),
        stored={},
    )


def _beads_of_frames(path):
    """Structures of a file by sample and step, the beads in order: {sample: {step: {bead: atoms}}}."""
    samples = {}
    for number, (atoms, _) in enumerate(read_frames(path)):
        given = atoms.info
        missing = [key for key in KEYS if key not in given]
        if missing:
            raise SeriesError(f"{path}, frame {number}: has no {', '.join(missing)}; see the README beside it")
        beads = samples.setdefault(str(given["sample"]), {}).setdefault(int(given["step"]), {})
        if int(given["bead"]) in beads:
            raise SeriesError(f"{path}, frame {number}: bead {given['bead']} of step {given['step']} is there twice")
        beads[int(given["bead"])] = atoms
    return samples


def stored_frames(path, model_path, potential, references, samples):
    """Frames of a file, with the reference energies in it.

    Parameters
    ----------
    path : extended XYZ, plain or compressed
    model_path : the model that sampled them, its hash as the frames say
    potential : that model, loaded
    references : names of the references whose energies are wanted
    samples : names of the samples that are wanted

    Returns
    -------
    dict of ReferenceFrames by sample

    Raises
    ------
    SeriesError
        if a bead or an energy is missing, or another model has sampled them.
    """
    sha256 = file_hash(model_path)
    found = _beads_of_frames(path)
    frames = {}
    for sample in samples:
        if sample not in found:
            raise SeriesError(f"{path}: holds no frames of {sample!r}; it has {', '.join(found)}")
        steps = np.array(sorted(found[sample]))
        n_beads = max(len(found[sample][step]) for step in steps)
        for step in steps:
            if sorted(found[sample][step]) != list(range(n_beads)):
                raise SeriesError(
                    f"{path}: step {step} of {sample!r} has {len(found[sample][step])} of {n_beads} beads; give all"
                )
        frames[sample] = _stored_sample(
            sample, [[found[sample][step][bead] for bead in range(n_beads)] for step in steps], potential, references
        )
        hashes = {str(atoms.info["model_sha256"]) for beads in found[sample].values() for atoms in beads.values()}
        if hashes != {sha256}:
            raise SeriesError(f"{path}: was sampled with model {min(hashes)[:16]}, {model_path} is {sha256[:16]}")
    return frames


def _stored_sample(name, beads, potential, references):
    """ReferenceFrames of one sample from its structures, [frame][bead]."""
    first = beads[0][0]
    temperatures = {float(atoms.info["temperature"]) for frame in beads for atoms in frame}
    if len(temperatures) != 1 or any((atoms.numbers != first.numbers).any() for frame in beads for atoms in frame):
        raise SeriesError(f"frames of {name!r}: they are of different atoms or temperatures; keep one of each")
    positions = np.array([[atoms.positions for atoms in frame] for frame in beads])
    cells = np.array([frame[0].cell.array for frame in beads])

    def energies(key):
        return np.array([[float(atoms.info.get(key, np.nan)) for atoms in frame] for frame in beads])

    for reference in references:
        if not np.isfinite(energies(f"{reference}_energy")).all(axis=1).any():
            raise SeriesError(
                f"frames of {name!r}: none has {reference}_energy of all its beads; leave that reference out"
            )
    frames = ReferenceFrames(
        name=name,
        temperature=temperatures.pop(),
        numbers=first.numbers,
        pbc=np.array(first.pbc),
        steps=np.array([frame[0].info["step"] for frame in beads]),
        positions=positions,
        cells=cells,
        member_energies=evaluate_members(potential, first.numbers, first.pbc, positions, cells),
        stored={reference: energies(f"{reference}_energy") for reference in references},
    )
    difference = np.abs(frames.model_energies - energies("model_energy")).max()
    if not difference <= MODEL_TOLERANCE:
        raise SeriesError(
            f"frames of {name!r}: the energies of the model differ from the stored ones by up to {difference:.2g} eV"
        )
    return frames
