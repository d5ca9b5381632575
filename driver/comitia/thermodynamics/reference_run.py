"""A perturbation from a trajectory to its numbers: which frames, both energies of each, and what they say."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from comitia.engines.composed import load_potential, potential_hash
from comitia.engines.force_engines import EngineOptions
from comitia.engines.references import reference_energies
from comitia.engines.trajectories import energies_of, read_sampled
from comitia.errors import SeriesError, SettingsError, UsageError
from comitia.potential.source import refuse_corrections
from comitia.structures import read_template
from comitia.thermodynamics.both_ends import perturb_both_ends
from comitia.thermodynamics.corrected import calibration_test, difference_of_states, reweight_to_reference
from comitia.thermodynamics.perturbation import perturb
from comitia.thermodynamics.selection import stratified_frames, uncorrelated_frames

STORE = "reference.labels"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes
    ----------
    trajectory, model, reference : as on the command line of `comitia perturb`
    temperature : float, K
    folder : Path, of the store
    ensemble : int or None, which of a replica exchange, where several have this temperature
    periodic : bool or None, of i-PI's cells
    n_frames : int, "all", or None for as many as are uncorrelated
    skip : int, frames left out at the start
    n_beads : int, drawn at random from each frame, or None for all
    stratify, n_bins : a column F[:COL], and the bins of it from which equally many frames are taken; or None
    bias : a column F[:COL], eV, or None
    observables : columns F[:COL]
    states : a column F[:COL] of 1, 0 and -1, or None
    constant : number (eV), EL=E,..., or a structure file, or None
    trained : bool, whether the model was trained on this reference
    reference_trajectory : frames sampled with the reference, or None
    skip_failed : int, structures
    options : EngineOptions
    """

    trajectory: str
    model: str
    reference: str
    temperature: float
    folder: Path
    ensemble: int | None = None
    periodic: bool | None = None
    n_frames: int | str | None = None
    skip: int = 0
    n_beads: int | None = None
    stratify: str | None = None
    n_bins: int = 10
    bias: str | None = None
    observables: tuple = ()
    states: str | None = None
    constant: str | None = None
    trained: bool = False
    reference_trajectory: str | None = None
    skip_failed: int = 0
    options: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class PerturbedFrames:
    """Frames with both energies.

    Attributes
    ----------
    frames : (n_frames,) integer array, places in the trajectory
    steps : (n_frames,) integer array, or None
    weights : (n_frames,) array, or None
    model, reference : (n_frames, n_given) arrays, eV, of every bead that was evaluated
    members : (n_frames, n_members) array, eV, means over beads; or None
    failed : list of {"frame", "error"}
    """

    frames: np.ndarray
    steps: np.ndarray | None
    weights: np.ndarray | None
    model: np.ndarray
    reference: np.ndarray
    members: np.ndarray | None
    failed: list


class ReferenceRun:
    """The perturbation that a request asks for.

    Parameters
    ----------
    request : Request
    progress : bool
    say : function that shows a line
    """

    def __init__(self, request, progress=True, say=lambda line: None):
        self.request, self._progress, self._say = request, progress, say
        self.potential = load_potential(request.model)
        refuse_corrections(self.potential, request.model)
        self.sampled = self._read(request.trajectory)
        if self.sampled.ensemble is not None:
            say(self.sampled.ensemble.describe())
        elif request.ensemble is not None:
            raise UsageError(
                f"--ensemble {request.ensemble}: {request.trajectory} is not of a replica exchange; leave it out"
            )
        if request.skip >= self.sampled.n_frames:
            raise UsageError(f"--skip {request.skip} leaves nothing of {self.sampled.n_frames} frames; skip fewer")
        if request.n_beads is not None and not 1 <= request.n_beads <= self.sampled.n_beads:
            raise UsageError(f"--beads {request.n_beads}: the frames have {self.sampled.n_beads}")
        self.n_called = self.n_from_before = 0
        self.identity = {}

    def _read(self, trajectory):
        request, given = self.request, self.request.temperature
        sampled = read_sampled(trajectory, request.periodic, given, request.ensemble)
        if sampled.temperature is not None and abs(sampled.temperature - given) > 5e-3 * given:
            raise SeriesError(
                f"{sampled.name}: the run is at {sampled.temperature:.6g} K (RESTART beside it), not at --temperature "
                f"{given:g}; give that of the run"
            )
        return sampled

    def run(self):
        """Everything that the energies say, as it stands in the JSON file; and the frames."""
        request = self.request
        frames, constant = self._evaluated(self.sampled, main=True), 0.0
        if request.constant is not None:
            constant = self._constant(frames)
        model, reference = frames.model, frames.reference - constant
        columns = {name: self._column(name, frames.frames) for name in self._columns()}
        bias = None if request.bias is None else columns[request.bias][0]
        common = {"bias": bias, "weights": frames.weights}
        n_beads = self.sampled.n_beads
        found = perturb(model, reference, request.temperature, n_beads=n_beads, **common)
        content = found.as_dict() | self._sources(frames, constant)
        content["per_atom"] = _share(found, len(self.sampled.numbers))
        means = model.mean(axis=1), reference.mean(axis=1)
        if request.observables:
            self._need_all_beads("averages under the reference")
            content["observables"] = {name: self._average(name, frames, means) for name in request.observables}
        if request.states is not None:
            self._need_all_beads("the difference of two states")
            state = columns[request.states][0]
            states = difference_of_states(*means, request.temperature, state.astype(int), **common)
            content["difference_of_states"] = states.as_dict()
        if request.trained and frames.members is not None and frames.members.shape[1] > 1:
            self._need_all_beads("the test of the calibration")
            alpha = getattr(self.potential, "alpha_energy", None) or 1.0
            test = calibration_test(frames.members, *means, request.temperature, alpha, **common)
            content["calibration"] = test.as_dict()
        if request.reference_trajectory is not None:
            content["both_ends"] = self._both_ends(means, constant).as_dict()
        return content, found, frames

    def _columns(self):
        request = self.request
        return dict.fromkeys(name for name in (request.states, request.bias) if name is not None)

    def _column(self, name, frames):
        values, _, unit = self.sampled.take(name, energies=name == self.request.bias)
        return values[frames], unit

    def _average(self, name, frames, means):
        """Of an observable over the trajectory, carried to the reference by the frames with energies."""
        request, skip = self.request, self.request.skip
        values, _, unit = self.sampled.take(name)
        bias = None if request.bias is None else self.sampled.take(request.bias, energies=True)[0][skip:]
        chosen = frames.frames - skip
        found = reweight_to_reference(
            values[skip:], *means, request.temperature, bias=bias, weights=frames.weights, chosen=chosen
        )
        return found.as_dict(unit)

    def _need_all_beads(self, what):
        if self.request.n_beads not in (None, self.sampled.n_beads):
            raise UsageError(f"{what} takes all beads of a frame; leave out --beads")

    def _sources(self, frames, constant):
        request = self.request
        return {
            "temperature": request.temperature,
            "ensemble": self.sampled.ensemble.number if self.sampled.ensemble else None,
            "trajectory": str(request.trajectory),
            "model": str(request.model),
            "model_sha256": potential_hash(request.model),
            "reference": request.reference,
            "reference_settings": self.identity,
            "n_beads": self.sampled.n_beads,
            "constant": constant,
            "constant_from": request.constant,
            "frames": frames.frames.tolist(),
            "steps": None if frames.steps is None else frames.steps.tolist(),
            "n_called": self.n_called,
            "n_from_before": self.n_from_before,
            "failed": frames.failed,
        }

    # ------------------------------------------------------------------------------------- energies
    def _chosen(self, sampled, main):
        """Frames that go to the reference, and what each stands for."""
        request, skip = self.request, self.request.skip if main else 0
        everything = np.arange(skip, sampled.n_frames)
        if main and request.stratify is not None:
            variable = sampled.take(request.stratify)[0][skip:]
            edges = np.linspace(variable.min(), variable.max(), request.n_bins + 1)
            count = request.n_frames if isinstance(request.n_frames, int) else 10 * request.n_bins
            chosen, weights = stratified_frames(variable, count, edges)
            return everything[chosen], weights
        if request.n_frames == "all":
            return everything, None
        self._say(f"{sampled.n_frames} frames of {sampled.n_beads} beads: energies of the model ...")
        energies, _ = energies_of(self.potential, sampled.structures(everything), request.options.n_threads)
        series = energies.reshape(len(everything), -1).mean(axis=1)
        return everything[uncorrelated_frames(series, request.n_frames)], None

    def _evaluated(self, sampled, main):
        """Both energies of the frames that were chosen; frames of which one structure failed are left out."""
        request = self.request
        chosen, weights = self._chosen(sampled, main)
        beads = None
        if main and request.n_beads not in (None, sampled.n_beads):
            rng = np.random.default_rng(0)  # the same beads of a frame whenever it is asked for again
            drawn = [rng.choice(sampled.n_beads, request.n_beads, replace=False) for _ in range(sampled.n_frames)]
            beads = np.array([np.sort(drawn[frame]) for frame in chosen])
        structures = sampled.structures(chosen, beads)
        self._say(f"{len(chosen)} frames, {len(structures)} structures go to {request.reference}")
        found = self._reference(structures)
        model, members = energies_of(self.potential, structures, request.options.n_threads)
        shape = (len(chosen), -1)
        reference = found.energies.reshape(shape)
        kept = np.isfinite(reference).all(axis=1)
        per_frame = reference.shape[1]
        failed = [{"frame": int(chosen[one["structure"] // per_frame]), "error": one["error"]} for one in found.failed]
        if members is not None:
            members = members.reshape(*reference.shape, -1).mean(axis=1)[kept]
        return PerturbedFrames(
            frames=chosen[kept],
            steps=None if sampled.steps is None else sampled.steps[chosen[kept]],
            weights=None if weights is None else weights[kept],
            model=model.reshape(shape)[kept],
            reference=reference[kept],
            members=members,
            failed=failed,
        )

    def _reference(self, structures):
        request = self.request
        store = Path(request.folder) / STORE
        found = reference_energies(
            structures, request.reference, store, request.options, request.skip_failed, self._progress
        )
        self.n_called += found.n_called
        self.n_from_before += found.n_from_before
        self.identity = json.loads(json.dumps(found.identity))
        return found

    def _constant(self, frames):
        """Energy constant of the reference for these atoms, eV, taken off all its energies."""
        text, numbers = self.request.constant, self.sampled.numbers
        if Path(text).is_file():
            atoms = read_template(text)
            if sorted(atoms.numbers) != sorted(numbers):
                raise SettingsError(f"--constant {text}: its atoms are not those of the frames; give one composition")
            return float(self._reference([atoms]).energies[0] - energies_of(self.potential, [atoms])[0][0])
        try:
            if "=" not in text:
                return float(text)
            from ase.symbols import symbols2numbers

            of_element = {symbols2numbers(one)[0]: float(energy) for one, energy in _pairs(text)}
            return float(sum(of_element[number] for number in numbers.tolist()))
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"--constant {text}: give eV, eV of each element as H=-13.6,O=-2041.8, or a structure file"
            ) from error

    def _both_ends(self, means, constant):
        """With the frames that were sampled with the reference."""
        self._need_all_beads("the other end")
        sampled = self._read(self.request.reference_trajectory)
        if not np.array_equal(sampled.numbers, self.sampled.numbers) or sampled.n_beads != self.sampled.n_beads:
            raise SeriesError(f"{sampled.name}: its atoms or beads are not those of {self.sampled.name}")
        end = self._evaluated(sampled, main=False)
        there = end.model.mean(axis=1), end.reference.mean(axis=1) - constant
        return perturb_both_ends(means, there, self.request.temperature)


def _pairs(text):
    return [part.strip().split("=") for part in text.split(",")]


def _share(found, n_atoms):
    """The numbers that are quoted for one atom."""
    share = found.per(n_atoms)
    return {"value": share.delta_f, "unit": "eV/atom", "statistical_error": share.error, "n_atoms": n_atoms}
