"""Which cutoff and which basis: a search within a time limit, by grouped validation error and by cost on this machine.

Successive halving: every candidate is fitted to a small part of the training structures; those nearest the front of
error against cost go on to a part three times as large, and so on to all of them (Jamieson and Talwalkar, AISTATS 2016,
arXiv:1502.07943). The structures that judge are whole blocks of frames that no part holds. Every trial is written down
as it ends, so that a search that was killed goes on where it was.
"""

import dataclasses
import math
import os
import time

import msgspec
import numpy as np

from comitia.errors import ComitiaError, OutputError
from comitia.files import write_atomic
from comitia.progress import Stages
from comitia.threads import default_threads
from comitia.training import cost, dataset
from comitia.training.committee import fit_committee
from comitia.training.design import DesignStream
from comitia.training.evidence import PriorShape
from comitia.training.fit import species_of
from comitia.training.groups import draw_blocks
from comitia.training.memory import check_memory, fit_memory
from comitia.training.normal_equations import NormalEquations
from comitia.training.passes import accumulate
from comitia.training.sums import digest
from comitia.training.terms import choose_terms
from comitia.training.transfer import regularise
from comitia.training.validation import evaluate

CUTOFFS = (1.0, 0.9, 1.15, 0.8, 1.3)  # of the one in the settings
SIZES = {  # n_max, l_max -> numbers of features
    ((10, 8, 0, 0), (0, 7, 0, 0)): (120, 250),
    ((10, 8, 8, 0), (0, 7, 6, 0)): (250, 500, 1000),
    ((10, 8, 8, 4), (0, 7, 6, 4)): (400, 700, 1200, 2000),
}
MOST_COLUMNS = 6000  # of the design matrix
PARTS = (1 / 9, 1 / 3, 1.0)  # of the training structures, rung by rung
FEWEST_STRUCTURES, FEWEST_PROMOTED = 20, 4
SCALES = (("energy", 1e3), ("forces", 1.0))  # kinds that judge, units of the error table in those of TYPICAL_ERROR


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A cutoff, Å, and what the basis is made of."""

    cutoff: float
    n_max: tuple
    l_max: tuple
    max_features: int

    def settings(self, settings):
        """The settings of a fit with this cutoff and basis."""
        basis = msgspec.structs.replace(
            settings.basis,
            radial="optimal",
            n_max=list(self.n_max),
            l_max=list(self.l_max),
            max_features=self.max_features,
        )
        return msgspec.structs.replace(settings, cutoff=self.cutoff, basis=basis, accuracy=None)


class Trial(msgspec.Struct):
    """What one fit gave: RMSE on the structures that judge, µs/atom; `failed` says why there is none."""

    candidate: int
    rung: int
    structures: int
    seconds: float
    features: int = 0
    cost: float = 0.0
    energy: float | None = None
    forces: float | None = None
    error: float = 0.0
    failed: str = ""


class _TimeIsUp(Exception):
    pass


def candidates(settings, n_species):
    """All that may be tried, the given cutoff and small bases first; few features where there are many species."""
    most = max(MOST_COLUMNS // n_species, min(min(sizes) for sizes in SIZES.values()))
    sizes = [(*shape, size) for shape, sizes in SIZES.items() for size in sizes if size <= most]
    sizes.sort(key=lambda one: one[2])
    return [Candidate(round(scale * settings.cutoff, 2), *size) for scale in CUTOFFS for size in sizes]


def front(trials):
    """Those that none of the others beats in cost and error at once, by increasing cost."""
    best, found = math.inf, []
    for trial in sorted(trials, key=lambda one: (one.cost, one.error)):
        if trial.error < best:
            best = trial.error
            found.append(trial)
    return found


def promoted(trials):
    """The third of the trials that is nearest the front: front after front is taken away."""
    left, taken = [trial for trial in trials if not trial.failed], []
    wanted = max(FEWEST_PROMOTED, math.ceil(len(left) / 3))
    while left and len(taken) < wanted:
        layer = front(left)
        taken += sorted(layer, key=lambda one: one.error)[: wanted - len(taken)]
        left = [trial for trial in left if all(trial is not other for other in layer)]
    return [trial.candidate for trial in sorted(taken, key=lambda one: one.cost)]


def combined_error(errors):
    """Geometric mean of the RMSE of energies and forces over the typical errors."""
    ratios = [errors[kind]["rmse"] / (scale * dataset.TYPICAL_ERROR[kind]) for kind, scale in SCALES if kind in errors]
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-12)))))


class Search:
    """The trials of one search, done and to do.

    Parameters
    ----------
    settings : FitSettings
    split : Split with a validation set
    seconds : float, the time limit; what earlier runs of the same search took counts
    folder : Path, where trials are written down
    stages : Stages
    """

    def __init__(self, settings, split, seconds, folder, stages):
        self.settings, self.split, self.limit, self.stages = settings, split, seconds, stages
        self.species, self.n_threads = species_of(split), settings.threads or default_threads()
        self.candidates = candidates(settings, len(self.species))
        self.parts = [part for part in map(self._part, PARTS) if part is not None]
        content = msgspec.json.encode([msgspec.to_builtins(settings), [len(part) for part in self.parts]])
        held = dataset.fingerprint(split.training) + dataset.fingerprint(split.validation)
        self.path, self.key = folder / "trials.jsonl", digest(content.decode() + repr(self.candidates) + held)
        self.trials = self._earlier()
        self.begin = time.monotonic() - sum(trial.seconds for trial in self.trials)

    def _part(self, fraction):
        """Indices of a part of the training structures, every species among them; None where they are too few."""
        training, blocks = self.split.training, self.split.blocks
        if fraction == 1.0:
            return np.arange(len(training))
        rng = np.random.default_rng([self.settings.seed, 3])
        drawn = draw_blocks([s.config_type for s in training], blocks, fraction, rng)
        missing = set(self.species.tolist()) - {z for i in np.flatnonzero(drawn) for z in training[i].atoms.numbers}
        for z in sorted(missing):
            drawn[next(i for i, s in enumerate(training) if z in s.atoms.numbers)] = True
        return np.flatnonzero(drawn) if drawn.sum() >= FEWEST_STRUCTURES else None

    def _earlier(self):
        """Trials that an earlier run of the same search wrote down; a line cut short, and what follows, is dropped."""
        try:
            key, *lines = self.path.read_bytes().splitlines(keepends=True)
        except (OSError, ValueError):
            key, lines = b"", []
        found = []
        for line in lines if key.strip() == self.key.encode() else []:
            try:
                found.append(msgspec.json.decode(line, type=Trial))
            except msgspec.DecodeError:
                break
        try:
            self.path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); choose another place") from error
        write_atomic(self.path, b"".join([self.key.encode(), b"\n", *(msgspec.json.encode(t) + b"\n" for t in found)]))
        return found

    def _write(self, trial):
        self.trials.append(trial)
        with open(self.path, "ab") as file:
            file.write(msgspec.json.encode(trial) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def spent(self):
        """Seconds since the search began, those between its runs left out."""
        return time.monotonic() - self.begin

    @property
    def _has_one(self):
        """Whether there is something to show; until then the limit is not looked at."""
        return any(not trial.failed for trial in self.trials)

    def of_rung(self, rung):
        return [trial for trial in self.trials if trial.rung == rung]

    def run(self):
        """Rung by rung; a rung may last until its share of the limit is over."""
        chosen = list(range(len(self.candidates)))
        for rung, part in enumerate(self.parts):
            share = self.limit * (rung + 1) / len(self.parts)
            done = {trial.candidate for trial in self.of_rung(rung)}
            with self.stages.stage(f"{len(part)} structures", len(chosen)) as step:
                for candidate in chosen:
                    if candidate not in done:
                        if self._has_one and self.spent > share:
                            break
                        try:
                            self._write(self._trial(candidate, rung, [self.split.training[i] for i in part]))
                        except _TimeIsUp:
                            return
                    step()
            chosen = promoted(self.of_rung(rung))

    def _trial(self, candidate, rung, training):
        begin, settings = time.monotonic(), self.candidates[candidate].settings(self.settings)
        in_time = self.limit if self._has_one else math.inf

        def check():
            if self.spent > in_time:
                raise _TimeIsUp

        trial = Trial(candidate, rung, len(training), 0.0)
        try:
            potential = small_fit(settings, training, self.species, self.n_threads, check)
            errors = evaluate(potential, self.split.validation, forces_spread=False, step=check).errors()
            trial.features, trial.error = potential.descriptor.n_features, combined_error(errors)
            trial.energy, trial.forces = (errors.get(kind, {}).get("rmse") for kind in ("energy", "forces"))
            atoms = cost.typical([s.atoms for s in self.split.training])
            trial.cost = cost.microseconds_per_atom(potential.descriptor, atoms)
        except ComitiaError as error:  # a basis that has no room, a fit that is singular: not this one
            trial.failed = str(error)
        trial.seconds = time.monotonic() - begin
        return trial

    def judged(self):
        """Trials of the highest rung at least half of which was done."""
        for rung in reversed(range(len(self.parts))):
            planned = len(promoted(self.of_rung(rung - 1))) if rung else 1
            found = [trial for trial in self.of_rung(rung) if not trial.failed]
            if found and 2 * len(found) >= planned:
                return found
        return []


def small_fit(settings, training, species, n_threads, check):
    """A potential of one member; `check` is called after every structure and may end it by raising."""
    from comitia.potential import Potential

    terms = choose_terms(settings, training, species, Stages(False).stage, n_threads)
    descriptor = terms.descriptor
    largest = max(len(s.atoms) for s in training)
    check_memory(fit_memory(descriptor.width, n_threads, n_threads, largest), descriptor.width, n_threads)
    targets = [
        dataset.make_target(s, species, terms.reference_energies, terms.core, settings.weights) for s in training
    ]
    equations, everything = NormalEquations(n_threads, descriptor.width), np.ones(n_threads, bool)
    stream = DesignStream(descriptor, training, np.arange(len(training)) % n_threads, n_threads)
    accumulate(stream, targets, equations, check)
    regularisation = regularise(equations, everything, PriorShape.of(descriptor), settings, step=check)
    found = fit_committee(equations, np.zeros(n_threads, int), everything, 1, regularisation, settings.weights, None)
    return Potential(
        descriptor=descriptor,
        weights=found.members,
        reference_energies=terms.reference_energies,
        core=terms.core,
    )
