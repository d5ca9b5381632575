"""The stages of a study, in order: fit → sample → reweight → perturb → report."""

import importlib.util
import json
import platform
import shutil
import time
from importlib import metadata
from pathlib import Path

import msgspec

from comitia import __version__
from comitia.engines.ipi_structure import read_initial_structure
from comitia.errors import SettingsError
from comitia.files import file_hash, write_json
from comitia.settings import convert
from comitia.study.observables import averages, check_observables
from comitia.study.settings import read_study
from comitia.study.simulations import of_ensembles, read_runs, read_simulation
from comitia.study.stages import Ledger, digest

MODEL = "model.safetensors"
RESULTS = "results.json"
AVERAGES = "averages.json"  # what the stage reweight found, a part of results.json
PERTURBATION = "perturbation.json"  # and what the stage perturb found
_MARKER = "sampling.json"  # in the folder of a sample: what the frames there were made from


class StudyRun:
    """One study with one setting, in one folder.

    Parameters
    ----------
    path : STUDY.yaml
    setting : name of a setting, by default the first
    directory : folder of the results; by default one named after the setting, beside the study
    restart : bool, do everything again
    progress : bool
    say : callable that shows a line of text
    """

    def __init__(self, path, setting=None, directory=None, restart=False, progress=True, say=print):
        self.path = Path(path)
        self.study, self.setting, self.fit_folder = read_study(path, setting)
        self.folder = Path(directory) if directory is not None else self.path.parent / (self.setting or "results")
        self.progress, self.say = progress, say
        self.simulations = {
            name: read_simulation(self.path.parent / sample.input) for name, sample in self.study.sample.items()
        }
        self.fit_settings = self._fit_settings()
        self._fit_inputs()
        numbers = {name: read_initial_structure(given.structure).numbers for name, given in self.simulations.items()}
        check_observables(self.study, numbers, {name: given.printed for name, given in self.simulations.items()})
        self.observables, self.against_temperature = of_ensembles(self.study.observables, self.simulations)
        _check_programs()
        self._check_perturbation()
        self.folder.mkdir(parents=True, exist_ok=True)
        if restart:
            for stale in (self.folder / "stages.json", self.folder / RESULTS):
                stale.unlink(missing_ok=True)
            shutil.rmtree(self.folder / "sample", ignore_errors=True)
        self.ledger = Ledger(self.folder)

    def _fit_settings(self):
        from comitia.training import FitSettings

        settings = convert(self.study.fit, FitSettings, f"{self.path}, fit")
        if settings.baseline is not None:
            raise SettingsError(f"{self.path}, fit: baseline: a study samples with the model alone; leave it out")
        return settings

    def run(self):
        """Every stage that is not done yet; the content of results.json."""
        self._stage("fit", self._fit_inputs(), self._fit)
        for name in self.study.sample:
            self._stage(f"sample {name}", self._sample_inputs(name), lambda name=name: self._sample(name))
        self._stage("reweight", self._reweight_inputs(), self._reweight)
        if self.study.perturb is not None:
            self._stage("perturb", self._perturb_inputs(), self._perturb)
        self._stage("report", self._report_inputs(), self._report)
        return self._read(RESULTS)

    def _stage(self, stage, made_from, work):
        if self.ledger.is_current(stage, made_from):
            self.say(f"{stage}: unchanged")
            return
        self.say(f"{stage} ...")
        begin = time.monotonic()
        self.ledger.finish(stage, made_from, work())
        self.say(f"{stage}: done in {time.monotonic() - begin:.1f} s")

    # ------------------------------------------------------------------ fit
    def _fit_inputs(self):
        from comitia.training.fit import find_input

        settings = self.fit_settings
        hold_outs = [hold_out for hold_out in (settings.validation, settings.test) if hold_out is not None]
        names = [settings.data, *(hold_out.file for hold_out in hold_outs if hold_out.file)]
        names += [settings.previous] if settings.previous else []
        files = {name: file_hash(find_input(self.fit_folder, name)) for name in names}
        return {"settings": msgspec.to_builtins(settings), "files": files, "version": __version__}

    def _fit(self):
        from comitia.training import fit

        model = self.folder / MODEL
        fit(self.fit_settings, directory=self.fit_folder, output=model, progress=self.progress)
        return [model, model.with_suffix(".json")]

    # --------------------------------------------------------------- sample
    def _steps(self, name):
        return self.study.sample[name].steps or self.simulations[name].total_steps

    def _first_step(self, name):
        equilibration = self.study.sample[name].equilibration
        return self._steps(name) // 10 if equilibration is None else equilibration

    def _sample_inputs(self, name):
        simulation, sample = self.simulations[name], self.study.sample[name]
        return {
            "input": file_hash(simulation.path),
            "files": [file_hash(path) for path in simulation.files],
            "clients": sample.clients,
            "threads": sample.threads,
            "steps": self._steps(name),
            "model": self.ledger.outputs("fit")[MODEL],
        }

    def _sample(self, name):
        from comitia.engines.ipi import sample

        folder, marker = self.folder / "sample" / name, self.folder / "sample" / name / _MARKER
        made_from = self._sample_inputs(name)
        steps = made_from.pop("steps")
        same = digest(made_from)
        try:
            known = json.loads(marker.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            known = {}
        if known.get("made_from") != same or known.get("steps", 0) > steps:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        write_json(marker, {"made_from": same, "steps": steps})
        settings = self.study.sample[name]
        sample(
            self.simulations[name].path,
            self.folder / MODEL,
            clients=settings.clients,
            n_threads=settings.threads,
            directory=folder,
            total_steps=steps,
            progress=self.progress,
        )
        return [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != _MARKER]

    # ------------------------------------------------------------- reweight
    def _reweight_inputs(self):
        samples = {name: self.ledger.outputs(f"sample {name}") for name in self.study.sample}
        return {
            "samples": samples,
            "observables": msgspec.to_builtins(self.study.observables),
            "first_steps": {name: self._first_step(name) for name in self.study.sample},
            "reweight": msgspec.to_builtins(self.study.reweight),
            "model": self.ledger.outputs("fit"),
            "version": __version__,
        }

    def _reweight(self):
        from comitia.potential import load

        potential = load(self.folder / MODEL)
        runs = {key: run for name in self.study.sample for key, run in self._read_runs(name).items()}
        found = averages(msgspec.structs.replace(self.study, observables=self.observables), runs, potential)
        results = {
            "study": self.path.name,
            "setting": self.setting,
            **found,
            "against_temperature": self.against_temperature,
            "samples": {
                name: {
                    "temperature": run.temperature,
                    "n_beads": run.n_beads,
                    "n_frames": len(run.steps),
                    "first_step": int(run.steps[0]),
                    "last_step": int(run.steps[-1]),
                }
                for name, run in runs.items()
            },
            "model": self._model(potential),
            "versions": _versions(),
        }
        write_json(self.folder / AVERAGES, results)
        return [self.folder / AVERAGES]

    def _read_runs(self, name):
        return read_runs(name, self.simulations[name], self.folder / "sample" / name, self._first_step(name))

    def _model(self, potential):
        report = json.loads((self.folder / MODEL).with_suffix(".json").read_text(encoding="utf-8"))
        return {
            "file": MODEL,
            "sha256": self.ledger.outputs("fit")[MODEL],
            "n_members": potential.n_members,
            "alpha_energy": potential.alpha_energy,
            "alpha_forces": potential.alpha_forces,
            "features": report["features"],
            "errors": report["errors"],
        }

    # -------------------------------------------------------------- perturb
    def _stored_files(self):
        """Digests of the files with stored frames and their model; empty without them."""
        stored = self.study.perturb and self.study.perturb.stored
        return [file_hash(self.path.parent / name) for name in (stored.frames, stored.model)] if stored else []

    def _check_perturbation(self):
        from comitia.study.perturbation import check_perturbation

        if self.study.perturb is not None:
            check_perturbation(self.study, self.path.parent, self.simulations)

    def _perturb_inputs(self):
        return {
            "averages": self.ledger.outputs("reweight"),
            "perturb": msgspec.to_builtins(self.study.perturb),
            "files": self._stored_files(),
            "version": __version__,
        }

    def _perturb(self):
        from comitia.potential import load
        from comitia.study.perturbation import perturb_samples

        potential = load(self.folder / MODEL)
        frames, read = self.study.perturb.frames, self.study.perturb.stored is None
        of_each = {own: count for name, count in frames.items() for own in self.simulations[name].ensembles(name)}
        settings = msgspec.structs.replace(self.study.perturb, frames=of_each)
        found = perturb_samples(
            msgspec.structs.replace(self.study, observables=self.observables, perturb=settings),
            self.path.parent,
            {own: run for name in frames if read for own, run in self._read_runs(name).items()},
            potential,
            self._read(AVERAGES),
            self.folder / "perturb",
            progress=self.progress,
        )
        write_json(self.folder / PERTURBATION, found)
        return [self.folder / PERTURBATION, *(self.folder / "perturb").glob("*.png")]

    # --------------------------------------------------------------- report
    def _read(self, name):
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def _report_inputs(self):
        perturbation = self.ledger.outputs("perturb") if self.study.perturb is not None else None
        return {
            "averages": self.ledger.outputs("reweight"),
            "perturbation": perturbation,
            "report": msgspec.to_builtins(self.study.report),
            "version": __version__,
        }

    def _report(self):
        from comitia.report.plots import study_figure

        results = self._read(AVERAGES)
        if self.study.perturb is not None:
            found = self._read(PERTURBATION)
            results["checks"] |= found.pop("checks")
            results["perturbation"] = found
        write_json(self.folder / RESULTS, results)
        figure = self.folder / "figure.png"
        study_figure(results, self.study.report, figure, self._parity())
        return [self.folder / RESULTS, figure]

    def _parity(self):
        """Reference and predicted energies and forces of the test structures, or None where there are none."""
        from comitia.potential import load
        from comitia.structures import read_structures
        from comitia.training.fit import find_input

        test = self.fit_settings.test
        if test is None or test.file is None:
            return None
        structures = read_structures(find_input(self.fit_folder, test.file), self.fit_settings.keys)
        predictions = load(self.folder / MODEL).compute([structure.atoms for structure in structures])
        return structures, predictions


def _check_programs():
    """What the last stages need is there before the first one begins."""
    from comitia.engines.ipi import find_ipi

    find_ipi()
    if importlib.util.find_spec("matplotlib") is None:
        raise SettingsError("matplotlib, which draws the figure, is not installed; pip install 'comitia[report]'")


def _versions():
    packages = {"comitia": __version__, "python": platform.python_version()}
    for name in ("ase", "ipi", "numpy", "scipy"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return packages


def run_study(path, setting=None, directory=None, restart=False, progress=True, say=print):
    """Run what is left of a study; see `StudyRun` for the parameters.

    Returns
    -------
    results : dict, the content of results.json
    folder : Path that holds it
    """
    study = StudyRun(path, setting, directory, restart, progress, say)
    return study.run(), study.folder
