"""Everything that an input names, loaded and tried for three steps before a queue does: `comitia check`."""

from comitia.engines.check_input import input_findings, order_findings, pressure_findings
from comitia.engines.check_potential import correction_findings, cutoff_of, heights, tried, without_stress
from comitia.engines.composed import load_potential
from comitia.engines.ipi_input import IpiInput
from comitia.engines.ipi_structure import read_initial_structure
from comitia.errors import ComitiaError
from comitia.findings import refusal, warning
from comitia.structures import check_species


class Check:
    """What is known of an input, and what is wrong with it; a part that cannot be read does not keep others from it.

    Attributes
    ----------
    facts : dict that JSON can hold
    findings : list of Finding
    """

    def __init__(self):
        self.facts, self.findings = {}, []

    def attempt(self, function, *arguments):
        """The value of a function; None, and a refusal, where it raises a ComitiaError."""
        try:
            return function(*arguments)
        except ComitiaError as error:
            self.findings.append(refusal(error))
            return None

    def potential(self, path, atoms, n_structures=1, n_threads=None):
        """Look at a loaded potential and the atoms that it is for, either of which may be missing."""
        potential = self.attempt(load_potential, path)
        if potential is None:
            return None
        self.facts["potential"] = {
            "file": str(path),
            "n_members": potential.n_members,
            "cutoff": cutoff_of(potential),
            "species": None if potential.species is None else [int(z) for z in potential.species],
        }
        try:
            self._try(potential, path, atoms, n_structures, n_threads)
        finally:
            getattr(potential, "close", lambda: None)()
        return potential

    def _try(self, potential, path, atoms, n_structures, n_threads):
        if atoms is None:
            return
        if potential.species is not None:
            known = len(self.findings)
            self.attempt(check_species, atoms, potential.species, str(self.facts["structure"]["file"]))
            if len(self.findings) > known:
                return
        trial, found = tried(potential, atoms, path, n_structures, n_threads)
        self.findings += found
        self.facts["potential"]["without_stress"] = (
            self.attempt(without_stress, potential, atoms) if trial is not None else []
        )
        if trial is not None:
            self.facts["trial"] = {
                "energy": trial.energy,
                "energy_uncertainty": trial.energy_uncertainty,
                "largest_force": trial.largest_force,
                "seconds_per_step": trial.seconds,
                "memory": trial.memory,
                "units": {"energy": "eV", "largest_force": "eV/Å", "memory": "bytes"},
            }

    def structure(self, path, atoms):
        """Remember what the atoms are."""
        self.facts["structure"] = {
            "file": str(path),
            "formula": atoms.get_chemical_formula(),
            "n_atoms": len(atoms),
            "pbc": atoms.pbc.tolist(),
            "heights": heights(atoms).tolist() if atoms.pbc.any() else [],
        }


def check_input(path, model=None, template=None, n_threads=None):
    """Check an input of i-PI with the potential that is to serve it.

    Parameters
    ----------
    path : i-PI's XML
    model : model file or POTENTIAL.yaml, or None
    template : structure file that is to be given to `comitia serve`, or None for the one that i-PI starts from
    n_threads : int or None

    Returns
    -------
    Check
    """
    check = Check()
    run = check.attempt(IpiInput, path)
    if run is None:
        return check
    n_structures = run.n_beads * run.n_systems
    sockets = [f"{s.mode}:{s.address}:{s.port}" if s.mode == "inet" else f"{s.mode}:{s.address}" for s in run.sockets]
    check.facts["simulation"] = {
        "steps": run.total_steps,
        "systems": run.n_systems,
        "beads": run.n_beads,
        "sockets": sockets,
        "outputs": run.prefix,
    }
    atoms = check.attempt(_initial_atoms, run, check)
    if template is not None and atoms is not None:
        given = check.attempt(read_initial_structure, template)
        if given is not None:
            check.findings += order_findings(given, atoms, template, run.path)
    potential = None
    if model is not None:
        potential = check.potential(model, atoms, n_structures, n_threads)
        if run.root.find(".//ffcommittee/baseline_name") is None:
            check.findings += correction_findings(potential, model)
        check.findings += pressure_findings(run, check.facts.get("potential", {}).get("without_stress"))
    check.findings[:0] = input_findings(run, atoms, potential, str(model))
    if "trial" in check.facts:
        trial = check.facts["trial"]
        asleep = max((s.latency * -(-n_structures // max(s.batch_size, 1)) for s in run.sockets), default=0.0)
        trial |= {"seconds_asleep": asleep, "seconds_of_run": (trial["seconds_per_step"] + asleep) * run.total_steps}
    return check


def _initial_atoms(run, check):
    found = run.structure_file()
    if found is not None and found[1] != "chk":
        atoms = read_initial_structure(found[0], units=run.structure_units())
        check.structure(found[0], atoms)
        return atoms
    symbols = (IpiInput(found[0]) if found else run).symbols()
    check.findings.append(
        warning(
            f"{run.path}: starts from a checkpoint of {len(symbols)} atoms; no step was tried, check its first input"
        )
    )
    return None


def check_potential(path, template=None, n_threads=None):
    """Check a model file or a POTENTIAL.yaml, on the atoms of a structure file where one is given.

    Returns
    -------
    Check
    """
    check, atoms = Check(), None
    if template is not None:
        atoms = check.attempt(read_initial_structure, template)
        if atoms is not None:
            check.structure(template, atoms)
    else:
        check.findings.append(warning(f"{path}: no step was tried; name a structure with --template"))
    check.findings += correction_findings(check.potential(path, atoms, 1, n_threads), path)
    return check
