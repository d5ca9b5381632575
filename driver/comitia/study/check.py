"""What a fit or a study will do, found before it starts; see `comitia.engines.check`."""

import warnings
from pathlib import Path

import numpy as np

from comitia.engines.check import Check, check_input
from comitia.errors import ComitiaError, SettingsError
from comitia.findings import refusal, warning

TRIED = 3  # structures on which a baseline is tried
FEW = 20  # structures of a training set below which errors and uncertainties mean little


def check_fit(path):
    """Check a FIT.yaml: its data, what it holds out, what it goes on from, the memory it takes.

    Returns
    -------
    Check
    """
    from comitia.settings import load
    from comitia.training import FitSettings

    check = Check()
    settings = check.attempt(load, path, FitSettings)
    if settings is not None:
        _check_fit(check, settings, Path(path).parent)
    return check


def _check_fit(check, settings, folder):
    """Add facts and findings of a fit; the atomic numbers of its training set, or None."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        split = check.attempt(_split, settings, folder)
        if split is not None:
            check.attempt(_describe, check, settings, split)
            if settings.baseline is not None:
                check.attempt(_try_baseline, settings, folder, split.training[:TRIED])
    check.findings += [warning(one.message) for one in said if issubclass(one.category, UserWarning)]
    return None if split is None else {int(z) for s in split.training for z in s.atoms.numbers}


def _split(settings, folder):
    """The structures of a fit, as it would divide them."""
    from comitia.structures import read_structures
    from comitia.training import dataset
    from comitia.training.fit import check_weights, find_input, species_of
    from comitia.training.settings import check_settings

    check_settings(settings)
    path = find_input(folder, settings.data)
    structures = read_structures(path, settings.keys)
    if settings.previous is None:
        check_weights(settings, structures)
    elif not find_input(folder, settings.previous).is_file():
        raise SettingsError(f"previous: {settings.previous} is not there; correct the path")
    split = dataset.split(structures, settings, lambda name: find_input(folder, name))
    if len(split.training) < 2:
        raise SettingsError(f"{path}: {len(split.training)} structures are left to train on; give more")
    species_of(split)
    return split


def _describe(check, settings, split):
    from comitia.density.presets import WITHIN_A_COST, preset
    from comitia.threads import default_threads
    from comitia.training.groups import MAX_GROUPS
    from comitia.training.memory import check_memory, fit_memory

    training = split.training
    species = np.unique(np.concatenate([s.atoms.numbers for s in training]))
    accuracy = settings.accuracy if settings.target_cost is None else WITHIN_A_COST
    n_columns = len(species) * settings.basis.completed(preset(accuracy, len(species))).max_features
    n_columns, n_groups = min(settings.columns or n_columns, n_columns), min(MAX_GROUPS, len(training))
    largest = max(len(s.atoms) for s in training)
    memory = fit_memory(n_columns, n_groups, settings.threads or default_threads(), largest)
    labels = {kind: sum(getattr(s, kind) is not None for s in training) for kind in ("energy", "forces", "virial")}
    check.facts["fit"] = {
        "data": settings.data,
        "structures": {name: len(getattr(split, name)) for name in ("training", "validation", "test")},
        "atoms": sum(len(s.atoms) for s in training),
        "species": species.tolist(),
        "labels": labels,
        "config_types": sorted({s.config_type for s in training}),
        "members": settings.members,
        "cutoff": settings.cutoff,
        "largest_memory": memory,
        "units": {"largest_memory": "bytes", "cutoff": "Å"},
    }
    if len(training) < FEW:
        check.findings.append(
            warning(
                f"{settings.data}: {len(training)} structures to train on; errors and uncertainties will mean little"
            )
        )
    check_memory(memory, n_columns, n_groups)


def _try_baseline(settings, folder, structures):
    from comitia.engines.baselines import open_baseline
    from comitia.engines.sources import LAMMPS
    from comitia.training.corrections import corrected

    if not (settings.baseline.workers or LAMMPS).startswith(LAMMPS):
        warnings.warn(f"baseline: workers must connect to {settings.baseline.workers}; it was not tried", stacklevel=2)
        return
    baseline = open_baseline(settings.baseline, folder, Path.cwd(), n_threads=settings.threads)
    corrected(structures, baseline)


def check_study(path):
    """Check a STUDY.yaml: its fit, the input of every sample, what is averaged, what a perturbation needs.

    Returns
    -------
    Check
    """
    from comitia.engines.ipi_structure import read_initial_structure
    from comitia.settings import convert
    from comitia.structures import check_species
    from comitia.study.observables import check_observables
    from comitia.study.perturbation import check_perturbation
    from comitia.study.settings import read_study
    from comitia.study.simulations import of_ensembles, read_simulation
    from comitia.training import FitSettings

    check, folder = Check(), Path(path).parent
    try:
        study, setting, fit_folder = read_study(path)
        settings = convert(study.fit, FitSettings, f"{path}, fit")
    except ComitiaError as error:
        check.findings.append(refusal(error))
        return check
    if settings.baseline is not None:
        check.findings.append(refusal(f"{path}, fit: baseline: a study samples with the model alone; leave it out"))
    species = _check_fit(check, settings, fit_folder)
    fitted = folder / (setting or "results") / "model.safetensors"
    check.facts["samples"], simulations, numbers = {}, {}, {}
    for name, sample in study.sample.items():
        of_input = check_input(folder / sample.input, fitted if fitted.is_file() else None)
        check.facts["samples"][name] = of_input.facts
        check.findings += of_input.findings
        simulation = check.attempt(read_simulation, folder / sample.input)
        atoms = simulation and check.attempt(read_initial_structure, simulation.structure)
        if atoms is not None:
            numbers[name], simulations[name] = atoms.numbers, simulation
            if species is not None:
                check.attempt(check_species, atoms, sorted(species), str(simulation.structure))
    if len(simulations) == len(study.sample):
        check.attempt(of_ensembles, study.observables, simulations)
        printed = {name: simulation.printed for name, simulation in simulations.items()}
        check.attempt(check_observables, study, numbers, printed)
        if study.perturb is not None:
            check.attempt(check_perturbation, study, folder, simulations)
    check.findings = list(dict.fromkeys(check.findings))  # samples share files
    return check
