"""From a data file to a calibrated committee: the stages of `comitia fit`, in order."""

import dataclasses
import difflib
import resource
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from comitia.errors import SettingsError, StructureError
from comitia.files import check_destination, write_json
from comitia.progress import Stages
from comitia.structures import check_species, read_structures, stem
from comitia.threads import default_threads
from comitia.training import corrections, cost, dataset
from comitia.training.calibration import Calibration
from comitia.training.columns import choose_columns, used_columns
from comitia.training.committee import fit_committee, refine
from comitia.training.design import DesignStream
from comitia.training.evidence import PriorShape
from comitia.training.groups import MAX_GROUPS, deal_folds, make_groups
from comitia.training.memory import check_memory, fit_memory
from comitia.training.normal_equations import NormalEquations, triangle_size
from comitia.training.passes import accumulate
from comitia.training.report import Calibrated, fit_report
from comitia.training.residuals import Residuals
from comitia.training.settings import check_settings
from comitia.training.sums import PartialSums, sums_key
from comitia.training.systems import MOST_PARTS, chemical_system, cut_blocks, strata_of, systems_of_groups
from comitia.training.terms import Terms, choose_terms
from comitia.training.transfer import regularise
from comitia.training.update import EarlierFit, fingerprints, keep
from comitia.training.validation import Evaluation, evaluate

GRAM_BYTES = 2 << 30  # all group moments together
FEWEST_TO_CALIBRATE = 20  # held-out structures below which alpha is taken from folds of the training set instead
UNCALIBRATED = Calibration(1.0, 0)
SMALL_CHANGE, MOST_REFINEMENTS = 1e-6, 4  # relative change of the weights at which refinement ends, and steps at most


@dataclasses.dataclass
class FitResult:
    """A fitted potential, the report that lies beside it, and what was predicted for structures left out.

    Attributes
    ----------
    potential : Potential
    report : dict, as written to the JSON file
    path : Path of the model file
    held_out : Evaluation on the structures that calibrated the committee (folds or hold-out), or None
    """

    potential: object
    report: dict
    path: Path
    held_out: Evaluation | None


def find_input(directory, name):
    """Path of an input named in the settings: relative to the folder of the YAML file, else to the current one."""
    beside, here = Path(directory) / name, Path(name)
    return here if not beside.exists() and here.exists() else beside


def _check_output(output, data):
    """The model and its report must have somewhere to go, and not replace the data or each other."""
    report = output.with_suffix(".json")
    for path in (output, report):
        check_destination(path)
        if path.exists() and data.exists() and path.samefile(data):
            raise SettingsError(f"{path}: is the data; choose another name for the model")
    if report == output:
        raise SettingsError(f"{output}: is where the report goes; end the name of the model in .safetensors")


def species_of(split):
    species = sorted({int(z) for s in split.training for z in s.atoms.numbers})
    for s in (*split.validation, *split.test):
        check_species(s.atoms, species, s.origin)
    return np.array(species)


def check_weights(settings, structures):
    types = {s.config_type for s in structures}
    for name in settings.weights.config_type:
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the data have {', '.join(sorted(types))}"
            raise SettingsError(f"weights: no structure has the config_type {name!r}; {hint}")


def with_baseline(settings, baseline):
    """The settings of a fit to corrections: the baseline has a repulsive core of its own.

    Raises
    ------
    SettingsError
        where the settings name a baseline and none was opened.
    """
    if (settings.baseline is None) != (baseline is None):
        raise SettingsError("baseline: is opened by `comitia fit` and `comitia fit --tune`; leave it out here")
    return settings if baseline is None else msgspec.structs.replace(settings, core=False)


class _Fit:
    """What the stages of one fit hand on to each other."""

    def __init__(self, settings, split, stages, output, earlier=None):
        self.settings, self.split, self.stages, self.earlier = settings, split, stages, earlier
        self.n_threads = settings.threads or default_threads()
        if earlier is None:
            terms = choose_terms(settings, split.training, species_of(split), stages.stage, self.n_threads)
            if settings.basis.pseudo_species is not None and terms.descriptor.pseudo_species is None:
                warnings.warn(
                    f"basis: pseudo_species {settings.basis.pseudo_species} contracts nothing, the data have "
                    f"{terms.descriptor.n_species} species: each is a channel; give fewer, or leave it out",
                    stacklevel=3,
                )
            columns = np.arange(terms.descriptor.width)
            if settings.columns is not None:
                terms.descriptor, columns = choose_columns(terms.descriptor, split.training, settings.columns)
        else:
            found = earlier.potential
            terms = Terms(found.descriptor, found.reference_energies, found.core, None)
            columns = used_columns(found.weights, found.descriptor)
            for s in (*split.training, *split.validation, *split.test):
                check_species(s.atoms, found.species, s.origin)
        self.descriptor, self.e0, self.core = terms.descriptor, terms.reference_energies, terms.core
        self.cost, self.columns = terms.cost, columns
        self.targets = [
            dataset.make_target(s, self.descriptor.species, self.e0, self.core, settings.weights)
            for s in split.training
        ]
        self._deal()
        key = earlier.index["key"] if earlier else ""
        key = sums_key(self.descriptor, split.training, self.targets, self.group, columns, key)
        self.partial = PartialSums(output.with_suffix(".sums.partial"), key)
        width, largest = len(columns), max(len(s.atoms) for s in split.training)
        n_parts = MOST_PARTS + 1 if self.systems else 0
        self.memory = fit_memory(width, len(self.stratum), self.n_threads, largest, n_parts)
        check_memory(self.memory, width, len(self.stratum))

    def _deal(self):
        """Which group every structure is in, and which groups are held out in which fold."""
        settings, split = self.settings, self.split
        rng, strata = np.random.default_rng([settings.seed, 1]), [s.config_type for s in split.training]
        systems, blocks = [chemical_system(s) for s in split.training], split.blocks
        cut = blocks if settings.groups.key else cut_blocks(blocks, systems)  # where systems are kept apart
        if self.earlier is not None:
            blocks = cut if self.earlier.index.get("systems") else blocks
            dealt = self.earlier.groups(strata, systems, blocks, settings.folds, rng)
            self.group, self.names, self.stratum, self.folds, self.systems = dealt
            return
        calibrating = [s for s in split.validation if s.energy is not None or s.forces is not None]
        leave_out = settings.validation is None or len(calibrating) < FEWEST_TO_CALIBRATE
        fitting = GRAM_BYTES // (8 * triangle_size(len(self.columns)))
        most, apart = max(12, min(MAX_GROUPS, fitting)), None
        if self.descriptor.pseudo_species is not None and settings.regularisation is None:
            apart = strata_of(strata, systems, most, rng)
        if apart is not None:
            strata, blocks = apart, cut
        if apart is not None or leave_out or settings.members > 1 or settings.keep_sums:
            self.group, self.stratum = make_groups(strata, blocks, rng, most)
        else:  # nobody asks for part of the sums: groups are only there for the threads
            few = max(2, min(self.n_threads, fitting), min(MAX_GROUPS, fitting // 4))
            self.group = np.arange(len(split.training)) % few
            self.stratum = np.zeros(self.group.max() + 1, int)
        self.names = [strata[np.argmax(self.group == group)] for group in range(len(self.stratum))]
        self.systems = systems_of_groups(systems, self.group) if apart is not None else []
        self.folds = np.full(len(self.stratum), -1)
        if leave_out:
            self.folds = deal_folds(self.stratum, min(settings.folds, len(self.stratum)), rng)

    def solve(self, equations):
        """Committee on all of the training set, and on what is left of it in each fold."""
        settings, everything = self.settings, np.ones(len(self.stratum), dtype=bool)
        shape, seed = PriorShape.of(self.descriptor, self.columns), [settings.seed, 2]
        names = sorted(set(self.folds[self.folds >= 0].tolist()))
        with self.stages.stage("committee", (1 + len(names)) * (2 + settings.members)) as step:

            def members(allowed, regularisation, rng):
                step()
                how = (settings.members, regularisation, settings.weights, rng, step, settings.committee.kind)
                return fit_committee(equations, self.stratum, allowed, *how)

            def left_out(fold, like):
                allowed = self.folds != fold
                regularisation = regularise(equations, allowed, shape, settings, self.systems, like)
                found = members(allowed, regularisation, np.random.default_rng([*seed, fold + 1]))
                return dataclasses.replace(found, factor=None)

            regularisation = regularise(equations, everything, shape, settings, self.systems)
            with ThreadPoolExecutor(self.n_threads) as pool:
                of_all = pool.submit(members, everything, regularisation, np.random.default_rng([*seed, 0]))
                tasks = {fold: pool.submit(left_out, fold, regularisation) for fold in names}
                return of_all.result(), {fold: task.result() for fold, task in tasks.items()}

    def run(self):
        """Both readings of the design matrix and the solutions between them."""
        stages, training = self.stages, self.split.training
        stream = DesignStream(self.descriptor, training, self.group, self.n_threads, columns=self.columns)
        equations = NormalEquations(len(self.stratum), len(self.columns))
        if self.earlier is not None:
            self.earlier.restore(equations)
        with stages.stage("design", len(training)) as step:
            accumulate(stream, self.targets, equations, step, self.partial)
        committee, fold_committees = self.solve(equations)
        errors = Residuals(training, self.group, [target.scale for target in self.targets], self.n_threads)
        held = {fold: self.potential_of(found.members) for fold, found in fold_committees.items()}
        with stages.stage("residuals", len(training)) as step:
            weights = committee.kind_weights if self.earlier is None else None
            records, held_out, gradient = errors(
                self.potential_of(committee.full[None]), weights, step, held, self.folds
            )
        self.equations, self.committee, self.refinement = equations, committee, []
        if self.earlier is None:
            with stages.stage("refinement", MOST_REFINEMENTS) as step:
                self._refine(errors, gradient[self.columns], step)
        else:
            held_out = self.earlier.held_out + held_out
        n_members = self.settings.members
        self.training = Evaluation(records, n_members, True)
        self.held_out = Evaluation(held_out, n_members, True) if held_out else None

    def _refine(self, errors, gradient, step):
        """Iterative refinement by the errors on the structures themselves."""
        self.committee, change = refine(self.committee, gradient)
        self.refinement = [change]
        while len(self.refinement) < MOST_REFINEMENTS and change > SMALL_CHANGE:
            step()
            _, _, gradient = errors(self.potential_of(self.committee.full[None]), self.committee.kind_weights)
            refined, change = refine(self.committee, gradient[self.columns])
            if change > 0.5 * self.refinement[-1]:  # rounding is all that is left
                break
            self.committee = refined
            self.refinement.append(change)

    def finish(self, output, potential, data, held_out):
        """The folder of partial sums goes, or becomes the one that another fit goes on from."""
        if not self.settings.keep_sums:
            self.partial.remove()
            return
        training, kept_out = fingerprints(self.split.training), [*self.split.validation, *self.split.test]
        fitted = {"names": self.names, "stratum": self.stratum, "fold": self.folds, "structures": training}
        fitted |= {"held": fingerprints(kept_out), "data": data, "systems": self.systems}
        if self.earlier is not None:
            for name in ("structures", "held"):
                fitted[name] = self.earlier.index[name] + fitted[name]
        keep(output, potential, self.partial, self.equations, fitted, held_out)

    def potential_of(self, members, energy=UNCALIBRATED, forces=UNCALIBRATED, metadata=None):
        """`Potential` of some members (n_members, n_columns)."""
        from comitia.potential import Potential

        weights = np.zeros((len(members), self.descriptor.width))
        weights[:, self.columns] = members
        return Potential(
            descriptor=self.descriptor,
            weights=weights,
            reference_energies=self.e0,
            core=self.core,
            alpha_energy=energy.alpha,
            alpha_forces=forces.alpha,
            force_floor=forces.floor,
            recentred=True,
            metadata=metadata or {},
        )

    def potential(self, *calibrations, metadata=None):
        """`Potential` of the committee."""
        return self.potential_of(self.committee.members, *calibrations, metadata=metadata)

    def measured_cost(self):
        """What an evaluation costs on one thread of this machine, µs/atom."""
        return self.cost or cost.microseconds_per_atom(
            self.descriptor, cost.typical(s.atoms for s in self.split.training)
        )

    def evaluate(self, name, structures):
        if not structures:
            return None
        with self.stages.stage(name, len(structures)) as step:
            return evaluate(self.potential(), structures, step=step)


def fit(settings, directory=".", output=None, progress=True, baseline=None):
    """Fit a committee as the settings say, write the model file and its report.

    Parameters
    ----------
    settings : FitSettings
    directory : folder that the paths of the settings are relative to
    output : path of the model file; by default the name of the data file, in the current folder
    progress : bool, whether to show a progress bar on a terminal
    baseline : what the `baseline` of the settings names, see `comitia.engines.sources.Baseline`

    Returns
    -------
    FitResult

    Raises
    ------
    ComitiaError
        before anything is written.
    """
    begin = time.perf_counter()
    check_settings(settings)
    settings = with_baseline(settings, baseline)
    output = Path(output) if output is not None else Path(f"{stem(settings.data)}.safetensors")
    data = find_input(directory, settings.data)
    _check_output(output, data)
    earlier = None
    if settings.previous:
        earlier = EarlierFit(find_input(directory, settings.previous), settings, baseline)
    structures = read_structures(data, settings.keys)
    if earlier is None:
        check_weights(settings, structures)
    else:
        structures = earlier.new_among(structures, data)
    split = dataset.split(structures, settings, lambda name: find_input(directory, name))
    if earlier is not None:
        split = earlier.without_held(split)
    if len(split.training) < (1 if earlier else 2):
        raise StructureError(f"{settings.data}: {len(split.training)} structures are left to train on; give more")
    with Stages(progress) as stages, threadpool_limits(1, "blas"):  # threads are ours: over structures and over fits
        if baseline is not None:
            split = corrections.corrected_split(split, baseline, stages)
        work = _Fit(settings, split, stages, output, earlier)
        work.run()
        validation = work.evaluate("validation", split.validation)
        test = work.evaluate("test", split.test)
        held_out, source = work.held_out, f"{settings.folds}-fold"
        if held_out is None and validation is not None:
            held_out, source = validation, "validation"
        energy = forces = UNCALIBRATED
        if settings.members > 1 and held_out is not None:
            energy, forces = held_out.calibrate()
        report = fit_report(work, validation, test, Calibrated(source, held_out, energy, forces))
        if baseline is not None:
            report["baseline"] = baseline.description(output.parent) | {"removed": corrections.removed(split.training)}
    potential = work.potential(energy, forces, metadata=report)
    potential.save(output)
    work.finish(output, potential, report["data"], held_out.records if held_out is not None else [])
    seconds = {**stages.seconds, "total": time.perf_counter() - begin}
    written = {"model": str(output), **report, "seconds": seconds, "threads": work.n_threads}
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of the process so far
    written["memory"] = {"estimate": work.memory, "peak": peak, "unit": "bytes"}
    written["cost"] = {"value": work.measured_cost(), "unit": "µs/atom"}
    write_json(output.with_suffix(".json"), written)
    return FitResult(potential, written, output, held_out)
