"""`comitia eval`: errors and calibration of a model on a data set."""

import contextlib
import warnings
from pathlib import Path

import click

from comitia.cli.fit import draw_calibration, show_warning


def write_predictions(path, structures, potential, baseline=None):
    """Extended XYZ with what the model, on its baseline, says: energy, forces, stress, and σ of the energy (eV)."""
    import io

    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.extxyz import write_xyz

    from comitia.files import write_atomic

    frames, predictions = [], potential.stream((s.atoms for s in structures), members=True)
    for structure, prediction in zip(structures, predictions, strict=True):
        atoms, structure = structure.atoms.copy(), structure.reference or structure
        found = {"energy": prediction.energy, "forces": prediction.forces}
        if atoms.cell.rank == 3:
            found["stress"] = prediction.stress
        if baseline is not None:
            found = _with_baseline(found, *baseline(atoms), atoms)
        atoms.info = {"config_type": structure.config_type}
        if prediction.energy_uncertainty is not None:
            atoms.info["energy_uncertainty"] = prediction.energy_uncertainty
        if structure.energy is not None:
            atoms.info["reference_energy"] = structure.energy
        for name in [name for name in atoms.arrays if name not in ("numbers", "positions")]:
            del atoms.arrays[name]
        if prediction.force_uncertainty is not None:
            atoms.arrays["force_uncertainty"] = prediction.force_uncertainty
        if structure.forces is not None:
            atoms.arrays["reference_forces"] = structure.forces
        atoms.calc = SinglePointCalculator(atoms, **found)
        frames.append(atoms)
    text = io.StringIO()
    write_xyz(text, frames)
    write_atomic(path, text.getvalue())


def _with_baseline(found, energy, forces, virial, atoms):
    """Total energy, forces and stress from those of the corrections and of the baseline."""
    total = {"energy": found["energy"] + energy, "forces": found["forces"] + forces}
    if virial is not None and "stress" in found:
        total["stress"] = found["stress"] - virial / atoms.cell.volume
    return total


@click.command(name="eval", short_help="errors and calibration of a model on a data set")
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.argument("structures", metavar="DATA.xyz", type=click.Path(path_type=Path))
@click.option("--json", "json_path", metavar="F", type=click.Path(path_type=Path), help="Write the numbers as JSON.")
@click.option("-o", "--output", metavar="OUT.xyz", type=click.Path(path_type=Path), help="Write predictions and sigma.")
@click.option("--figure", metavar="F", type=click.Path(path_type=Path), help="Draw errors against uncertainties.")
@click.option("--energy-key", default=None, help="Name of the energy in DATA.xyz; default that of the fit.")
@click.option("--forces-key", default=None, help="Name of the forces; default that of the fit.")
@click.option("--virial-key", default=None, help="Name of the virial; default that of the fit.")
@click.option("--stress-key", default=None, help="Name of the stress; default that of the fit.")
@click.pass_context
def command(context, model, structures, json_path, output, figure, energy_key, forces_key, virial_key, stress_key):
    """RMSE and MAE of energies, forces and virials; NLL, miscalibration area; sigma of every structure.

    A model of corrections is judged on its baseline, which must be where it was when the model was fitted.

    \b
    comitia eval silicon.safetensors Si_test.xyz.xz --json errors.json -o predicted.xyz
    """
    import msgspec

    from comitia.engines.baselines import baseline_of
    from comitia.files import check_destination, write_json
    from comitia.potential import load
    from comitia.potential.source import source_name
    from comitia.settings import convert
    from comitia.structures import Keys, read_structures
    from comitia.training import evaluate_dataset
    from comitia.training.corrections import corrected
    from comitia.training.summary import calibration_lines, error_lines

    for path in (json_path, output, figure):
        if path is not None:
            check_destination(path)
    potential = load(model)
    names = convert(potential.metadata.get("settings", {}).get("keys", {}), Keys, f"{model}, keys")
    given = {"energy": energy_key, "forces": forces_key, "virial": virial_key, "stress": stress_key}
    keys = msgspec.structs.replace(names, **{kind: name for kind, name in given.items() if name is not None})
    baseline = None
    if potential.corrects is not None:
        baseline = context.with_resource(contextlib.closing(baseline_of(potential, model)))
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show_warning
        labelled = read_structures(structures, keys)
        if baseline is not None:
            labelled = corrected(labelled, baseline)
            click.echo(f"corrections, judged together with their baseline, {source_name(potential.corrects)}")
    found = evaluate_dataset(potential, labelled)
    click.echo("\n".join(error_lines({structures.name: found["errors"]})))
    for line in calibration_lines(found["calibration"]):
        click.echo(line)
    if figure is not None:
        draw_calibration(found["calibration"], figure)
    if output is not None:
        write_predictions(output, labelled, potential, baseline)
    if json_path is not None:
        units = {"energy_error": "eV", "energy_uncertainty": "eV", "force_error": "eV/Å", "force_uncertainty": "eV/Å"}
        write_json(json_path, {"model": str(model), "data": str(structures), "units": units, **found})
