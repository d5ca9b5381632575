"""Samples of a study carried to reference methods by free-energy perturbation.

A reference has a constant of its own in its energies, so that of one sample only what no constant enters is given: the
second cumulant, averages and profiles under the reference. Between two samples of the same atoms the constant cancels.
"""

import contextlib
import sys

import numpy as np

from comitia.errors import SeriesError, SettingsError
from comitia.potential import load
from comitia.report.perturbation import perturbation_figure
from comitia.study.observables import cv_series, plain_unit, unit_factor
from comitia.study.perturbed_frames import STORED_TOLERANCE, chosen_frames, evaluate_members, stored_frames
from comitia.thermodynamics import (
    Profile,
    calibration_test,
    corrected_profile,
    difference,
    perturb,
    reweight_to_reference,
)
from comitia.thermodynamics.time_series import error_of_mean
from comitia.units import KB


def check_perturbation(study, folder, simulations):
    """Refuse, before anything has been sampled, what the stage `perturb` could not do at the end.

    Parameters
    ----------
    study : StudySettings
    folder : Path, what the paths in the study are relative to
    simulations : dict of `comitia.study.simulations.Simulation` by sample

    Raises
    ------
    SettingsError
        if a difference is of a replica exchange, a file is not there, or an engine that is started here cannot be made.
    """
    from comitia.engines.force_engines import open_engine

    settings = study.perturb
    for name, pair in settings.differences.items():
        if any(simulations[sample].replicas for sample in pair):
            raise SettingsError(f"perturb.differences.{name}: needs samples of one temperature, not an exchange")
    stored = settings.stored
    for name in (stored.frames, stored.model) if stored is not None else ():
        if not (folder / name).is_file():
            raise SettingsError(f"perturb.stored: {folder / name} is not there; correct the path")
    if stored is not None and not stored.recompute:
        return
    for reference in settings.references.values():
        if not reference.engine.startswith(("unix:", "tcp:", "lammps:")):  # processes that come when it is their turn
            with _modules_in(folder), open_engine(reference.engine):
                pass


def perturb_samples(study, folder, runs, potential, results, scratch, progress=True):
    """The stage `perturb` of a study.

    Parameters
    ----------
    study : StudySettings
    folder : Path, what the paths in the study are relative to
    runs : dict of SampledRun by sample; not used where frames are stored
    potential : the comitia.Potential of this study
    results : dict, what the stage `reweight` found
    scratch : Path, folder of the journals of reference energies, and of figures
    progress : bool

    Returns
    -------
    dict of what was found by reference, and the `checks` that were made
    """
    from comitia.engines.force_engines import EngineOptions

    settings, stored = study.perturb, study.perturb.stored
    checks, alpha = {}, potential.alpha_energy
    if stored is None:
        frames = {name: chosen_frames(runs[name], count, potential) for name, count in settings.frames.items()}
    else:
        model = load(folder / stored.model)
        alpha = model.alpha_energy
        frames = stored_frames(
            folder / stored.frames, folder / stored.model, model, settings.references, settings.frames
        )
        checks["perturb.largest_difference_of_models"] = _difference_of_models(potential, frames)
    scratch.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, reference in settings.references.items():
        with _modules_in(folder):
            energies, differences = evaluate_reference(
                name,
                reference,
                frames,
                scratch / f"{name}.references",
                EngineOptions(n_workers=settings.workers),
                settings.skip_failed,
                stored.recompute if stored is not None else 0,
                progress,
            )
        if len(differences):
            checks[f"perturb.{name}.largest_difference_to_stored"] = float(np.abs(differences).max())
            checks[f"perturb.{name}.recomputed"] = len(differences)
        found[name] = perturbed(study, name, runs if stored is None else {}, frames, energies, results, alpha, scratch)
    return found | {"checks": checks}


@contextlib.contextmanager
def _modules_in(folder):
    """Modules beside the study can be imported: calculators of the user's."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))


def _difference_of_models(potential, frames):
    """Largest standard deviation over frames of this study's potential less the one that sampled them, eV."""
    spreads = []
    for sample in frames.values():
        own = evaluate_members(potential, sample.numbers, sample.pbc, sample.positions, sample.cells).mean(axis=2)
        spreads.append(np.std((own - sample.model_energies).mean(axis=1)))
    return float(max(spreads))


def evaluate_reference(name, reference, frames, journal, options, skip_failed, recompute, progress):
    """Energies of one reference for the frames of every sample.

    Energies that the frames bring with them are taken, and those of `recompute` structures computed again and
    compared; all others are computed, into `journal`, from which a call that was ended goes on.

    Parameters
    ----------
    name : of the reference
    reference : comitia.study.settings.Reference
    frames : dict of ReferenceFrames by sample
    journal : Path
    options : comitia.engines.force_engines.EngineOptions
    skip_failed : number of structures without an energy that are put up with
    recompute : int
    progress : bool

    Returns
    -------
    energies : dict of (n_frames, n_beads) arrays by sample, eV, nan where there is none
    differences : (recompute,) array of recomputed less stored energies, eV; empty where none is stored
    """
    from comitia.engines.references import reference_energies

    structures = [atoms for sample in frames.values() for atoms in sample.structures()]
    stored = all(name in sample.stored for sample in frames.values())
    chosen = np.arange(len(structures))
    if stored:
        flat = np.concatenate([sample.stored[name].ravel() for sample in frames.values()])
        known = np.flatnonzero(np.isfinite(flat))
        chosen = known[np.unique(np.linspace(0, len(known) - 1, recompute).round().astype(int))]
    found = reference_energies(
        [structures[i] for i in chosen],
        reference.engine,
        journal,
        options=options,
        skip_failed=0 if stored else skip_failed,
        progress=progress,
    )
    differences = np.empty(0)
    if not stored:
        flat = found.energies
    elif len(chosen):
        differences = found.energies - flat[chosen]
        if not np.abs(differences).max() <= STORED_TOLERANCE:
            raise SeriesError(
                f"perturb.references.{name}: energies computed now differ from the stored ones by up to "
                f"{np.abs(differences).max():.2g} eV; were they made with {reference.engine}?"
            )
    ends = np.cumsum([sample.model_energies.size for sample in frames.values()])
    parts = np.split(flat, ends[:-1])
    energies = {
        label: part.reshape(sample.model_energies.shape)
        for (label, sample), part in zip(frames.items(), parts, strict=True)
    }
    return energies, differences


def shift_to_reference(observable, energy_model, energy_reference, temperature):
    r"""Average under the reference less that under the model, from the same frames, and its error.

    .. math:: \Delta\langle a\rangle = \frac{\sum_t a_t w_t}{\sum_t w_t} - \bar a, \qquad
              w_t = e^{-\beta (V_\mathrm{ref} - V_\mathrm{model})}

    What moves both averages together cancels, so that the shift is known better than either of them.

    Parameters
    ----------
    observable : (n_frames,) array
    energy_model, energy_reference : (n_frames,) arrays, eV, averaged over beads
    temperature : float, K

    Returns
    -------
    shift, error : floats, in the unit of the observable
    """
    exponent = -(energy_reference - energy_model) / (KB * temperature)
    weights = np.exp(exponent - exponent.max())
    weights *= len(weights) / weights.sum()
    reweighted = np.mean(weights * observable)
    influence = weights * (observable - reweighted) - (observable - observable.mean())
    return float(reweighted - observable.mean()), float(error_of_mean(influence))


def _of_one_sample(found, trained):
    """The result without what a constant in the energies enters, unless the reference shares that of the model."""
    given = found.as_dict()
    if not trained:
        given = {key: value for key, value in given.items() if key not in ("value", "interval_95")}
        kept = ("second", "second_error")
        given["cumulants"] = {key: given["cumulants"][key] for key in kept}
    return given


def perturbed(study, name, runs, frames, energies, results, alpha, figures):
    """Everything that one reference says.

    Parameters
    ----------
    study : StudySettings
    name : of the reference
    runs : dict of SampledRun by sample, from which the frames were chosen; empty where they are of earlier ones
    frames : dict of ReferenceFrames by sample
    energies : dict of (n_frames, n_beads) arrays, eV, of the reference
    results : dict, the averages and profiles of the study, see `comitia.study.observables.averages`
    alpha : calibration factor of the committee's energies
    figures : Path of a folder, for the diagnostics of every sample, NAME-SAMPLE.png

    Returns
    -------
    dict with `samples`, `differences`, `observables`, `profiles` and `calibration`
    """
    reference, free_energies, given = study.perturb.references[name], {}, {"samples": {}, "calibration": {}}
    kept = {}
    for sample, all_frames in frames.items():
        missing = ~np.isfinite(energies[sample]).all(axis=1)
        kept[sample] = chosen, of_reference = all_frames.without(missing), energies[sample][~missing]
        found = perturb(chosen.model_energies, of_reference, chosen.temperature)
        free_energies[sample] = found
        figure = figures / f"{name}-{sample}.png"
        perturbation_figure(chosen.model_energies, of_reference, chosen.temperature, found, figure)
        given["samples"][sample] = _of_one_sample(found, reference.trained) | {
            "n_beads": chosen.n_beads,
            "n_left_out": int(missing.sum()),
        }
        if reference.trained and chosen.member_energies.shape[2] > 1:
            given["calibration"][sample] = calibration_test(
                chosen.member_energies.mean(axis=1),
                chosen.model_energies,
                of_reference,
                chosen.temperature,
                alpha=alpha,
            ).as_dict()
    given["differences"] = {
        label: difference(free_energies[first], free_energies[second]).as_dict()
        for label, (first, second) in study.perturb.differences.items()
    }
    given |= _observables(study, runs, kept, free_energies, results)
    return given


def _profile(curve):
    """The Profile that results.json holds, without its members."""
    arrays = {
        name: None if curve[name] is None else np.array(curve[name], dtype=float)
        for name in ("x", "value", "statistical_error", "committee_error")
    }
    nothing = np.full((1, len(curve["x"])), np.nan)
    return Profile(**arrays, total_error=arrays["statistical_error"], members=nothing, density=nothing[0])


def _observables(study, runs, kept, free_energies, results):
    """Averages and profiles of collective variables under the reference."""
    found = {"observables": {}, "profiles": {}}
    for name, observable in study.observables.items():
        if observable.relative_to is not None and {observable.source, observable.relative_to} <= set(kept):
            pair = difference(*(free_energies[sample] for sample in (observable.source, observable.relative_to)))
            factor = unit_factor("eV", results["observables"][name]["unit"], f"perturb, observables.{name}")
            shift, error = factor * pair.delta_f, factor * (pair.error or 0.0)
            found["observables"][name] = _corrected(results["observables"][name], shift, error, pair)
        if observable.source not in kept or observable.cv is None:
            continue
        frames, energies = kept[observable.source]
        judged = free_energies[observable.source]
        where = f"perturb, observables.{name}"
        values, unit, _ = cv_series(frames, observable.cv, where)
        wanted = plain_unit(observable.unit or unit)
        values = values * unit_factor(unit, wanted, where)
        if observable.profile is not None:
            bins = observable.profile
            curve = corrected_profile(
                _profile(results["profiles"][name]),
                values,
                np.linspace(*bins.range, bins.bins + 1),
                frames.model_energies.mean(axis=1),
                energies.mean(axis=1),
                frames.temperature,
                symmetric=bins.symmetric,
            )
            found["profiles"][name] = {**curve.as_dict(), "x_unit": wanted}
            continue
        shift, error = shift_to_reference(
            values.mean(axis=1), frames.model_energies.mean(axis=1), energies.mean(axis=1), frames.temperature
        )
        given = found["observables"][name] = _corrected(results["observables"][name], shift, error, judged)
        if observable.source in runs:
            run = runs[observable.source]
            of_all = cv_series(run, observable.cv, where)[0].mean(axis=1) * unit_factor(unit, wanted, where)
            chosen = np.searchsorted(run.steps, frames.steps)
            together = reweight_to_reference(of_all, frames.model_energies, energies, frames.temperature, chosen=chosen)
            given["total_error"] = together.total_error
    return found


def _corrected(average, shift, error, judged):
    """An average carried to the reference by independent frames; the committee's error no longer enters."""
    return {
        "value": average["value"] + shift,
        "unit": average["unit"],
        "statistical_error": average["statistical_error"],
        "perturbation_error": error,
        "committee_error": None,
        "total_error": float(np.hypot(average["statistical_error"], error)),
        "effective_sample_size": judged.effective_sample_size,
        "verdict": judged.verdict,
        "shift": shift,
    }
