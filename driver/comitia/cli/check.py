"""`comitia check`: what an input will do, before a queue finds out."""

from pathlib import Path

import click

from comitia.errors import ComitiaError, SettingsError, UsageError

YAML = (".yaml", ".yml")


def _check(path, model, template, n_threads):
    """The `Check` that fits the kind of the file."""
    from comitia.engines.check import check_input, check_potential
    from comitia.findings import warning
    from comitia.settings import read_yaml

    if path.suffix == ".xml" or path.name == "RESTART":
        check = check_input(path, model, template, n_threads)
        if model is None:
            check.findings.append(warning(f"{path}: no potential was tried; name it with --model"))
        return check
    if model is not None:
        raise UsageError(f"--model belongs to an input of i-PI, not to {path}")
    keys = set(read_yaml(path)) if path.suffix in YAML else {"committee"}
    kinds = {"sample": "STUDY.yaml", "data": "FIT.yaml", "committee": "a potential", "members": "a potential"}
    kind = next((kinds[key] for key in kinds if key in keys), None)
    if kind is None:
        raise SettingsError(f"{path}: has none of the keys {', '.join(kinds)}; see the commented templates in inputs/")
    if kind == "a potential":
        return check_potential(path, template, n_threads)
    if template is not None:
        raise UsageError(f"--template belongs to a potential or an input of i-PI, not to {path}")
    from comitia.study.check import check_fit, check_study

    return check_study(path) if kind == "STUDY.yaml" else check_fit(path)


def _check_programs():
    """A `Check` of what is installed."""
    from comitia.engines.check import Check
    from comitia.engines.programs import programs
    from comitia.findings import warning

    check, found = Check(), programs()
    check.facts["programs"] = {one.name: one.found for one in found}
    check.findings += [warning(f"{one.name} ({one.purpose}): {one.missing}") for one in found if one.missing]
    return check


def _lines(facts):
    """What is known, one line for each part."""
    from ase.data import chemical_symbols

    for name, place in facts.get("programs", {}).items():
        yield f"{name:<11} {place or 'missing'}"
    fit = facts.get("fit")
    if fit:
        counts = ", ".join(f"{number} {name}" for name, number in fit["structures"].items() if number)
        labels = ", ".join(f"{number} with {name}" for name, number in fit["labels"].items())
        species = " ".join(chemical_symbols[z] for z in fit["species"])
        yield f"data        {fit['data']}: {counts}; {fit['atoms']} atoms, {species}"
        yield f"labels      {labels}; of {len(fit['config_types'])} kinds"
        memory = f"{fit['largest_memory'] / 2**30:.1f} GiB"
        yield f"fit         {fit['members']} members, cutoff {fit['cutoff']:g} Å, memory at most {memory}"
    for name, sample in facts.get("samples", {}).items():
        yield f"sample {name}:"
        yield from (f"  {line}" for line in _lines(sample))
    simulation, structure = facts.get("simulation"), facts.get("structure")
    potential, trial = facts.get("potential"), facts.get("trial")
    if simulation:
        yield (
            f"simulation  steps {simulation['steps']}, systems {simulation['systems']}, beads {simulation['beads']}, "
            f"sockets {', '.join(simulation['sockets']) or 'none'}, outputs {simulation['outputs']}.*"
        )
    if structure:
        cell = " x ".join(f"{height:.2f}" for height in structure["heights"])
        yield f"atoms       {structure['n_atoms']}, {structure['formula']}; {f'cell {cell} Å' if cell else 'no cell'}"
    if potential:
        species = " ".join(chemical_symbols[z] for z in potential["species"] or []) or "any"
        cutoff = f", cutoff {potential['cutoff']:g} Å" if potential["cutoff"] else ""
        yield f"potential   {potential['n_members']} members, species {species}{cutoff}"
    if trial:
        sigma = trial["energy_uncertainty"]
        per_atom = f"  sigma_E {1e3 * sigma / structure['n_atoms']:.3f} meV/atom" if sigma is not None else ""
        yield f"energy      {trial['energy']:.4f} eV{per_atom}  largest force {trial['largest_force']:.3f} eV/Å"
        yield f"memory      {trial['memory'] / 2**20:.0f} MiB of a force client"
        line = f"time        {trial['seconds_per_step']:.3g} s a step in the potential"
        if "seconds_of_run" in trial:
            line += f", {trial['seconds_asleep']:.3g} s asleep in i-PI; {trial['seconds_of_run']:.3g} s for all steps"
        yield line


@click.command(name="check", short_help="what an input will do, before a queue finds out")
@click.argument("path", metavar="[INPUT]", required=False, type=click.Path(path_type=Path))
@click.option("-m", "--model", type=click.Path(path_type=Path), help="Model file or POTENTIAL.yaml, for INPUT.xml.")
@click.option("--template", type=click.Path(path_type=Path), help="Structure that `comitia serve` is given.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the potential; default all cores.")
@click.option("--json", "json_path", metavar="F", type=click.Path(path_type=Path), help="Write all of it as JSON.")
def command(path, model, template, threads, json_path):
    """Load everything that INPUT names, try three steps, say what will happen; exit code 3 where it would go wrong.

    INPUT is an input of i-PI, a POTENTIAL.yaml, a model file, a FIT.yaml or a STUDY.yaml. Without one: which programs
    are there, and how those that are missing are installed.

    \b
    comitia check nvt.xml --model model.safetensors
    comitia check potential.yaml --template init.xyz
    comitia check
    """
    from comitia.files import check_destination, write_json

    if json_path is not None:
        check_destination(json_path)
    check = _check_programs() if path is None else _check(path, model, template, threads)
    for line in _lines(check.facts):
        click.echo(line)
    for finding in sorted(check.findings, key=lambda finding: finding.severity):  # refusals first
        click.echo(f"{finding.severity}: {finding.sentence}")
    refusals = sum(finding.severity == "refusal" for finding in check.findings)
    click.echo(f"refusals {refusals}, warnings {len(check.findings) - refusals}")
    if json_path is not None:
        found = [{"severity": finding.severity, "sentence": finding.sentence} for finding in check.findings]
        write_json(json_path, {"input": None if path is None else str(path), **check.facts, "findings": found})
    return ComitiaError.exit_code if refusals else 0
