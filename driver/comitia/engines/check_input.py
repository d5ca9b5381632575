"""What i-PI would make of an input and a potential, found before it starts."""

from pathlib import Path

from comitia.engines.ipi_input import STRUCTURE_MODES
from comitia.engines.ipi_structure import ipi_comment, read_initial_structure
from comitia.engines.plumed import actions, grows, require_kernel
from comitia.errors import ComitiaError
from comitia.findings import refusal, warning

ALWAYS_SENT = ("committee_pot", "committee_uncertainty")
SENT_ON_REQUEST = ("committee_force", "committee_virial")
OF_BASELINE = ("wb_mixing", "baseline_pot")
OF_LIMIT = ("uncertainty_bias",)
ISOTOPE_MASSES = {"D": 2.014, "T": 3.016}  # u
CONSTANT_PRESSURE = ("npt", "nst", "scnpt")  # modes of <dynamics>


def _listed(text):
    """The words of `[ a, b ]`."""
    return [word.strip() for word in (text or "").strip().strip("[]").split(",") if word.strip()]


def _is(text):
    return (text or "").strip().lower() == "true"


def _mode(element):
    return element.get("mode", "").strip()


def input_findings(run, atoms=None, potential=None, name="the potential"):
    """Findings about an input of i-PI that need no force.

    Parameters
    ----------
    run : IpiInput
    atoms : ase.Atoms, as the input starts from, or None where they cannot be read
    potential : Potential or ComposedPotential, or None
    name : str, of the potential, for messages

    Returns
    -------
    list of Finding
    """
    found = [warning(sentence) for sentence in run.warnings()]
    found += _force_fields(run)
    found += _committees(run, potential, name)
    found += _extras(run, potential)
    found += _contraction(run)
    found += _plumed(run)
    if atoms is not None:
        found += _same_atoms(run, atoms)
        found += _no_images(run, atoms)
    for system in (element for element in run.root.iter() if element.tag == "system"):
        found += _swaps(run, system)
    return found


def _force_fields(run):
    if not run.sockets:
        yield refusal(f"{run.path}: has no <ffsocket>, so that there is nobody to send forces to; see inputs/nvt.xml")
        return
    named = {e.get("name", "").strip() for e in run.root.iter() if e.tag.startswith("ff")}
    for element in run.root.iter("force"):
        asked = element.get("forcefield", "").strip()
        if asked not in named:
            there = ", ".join(sorted(named - {""})) or "none"
            yield refusal(f"{run.path}: <force forcefield='{asked}'> names no force field; there are {there}")
    for element in run.root.iter("ffsocket"):
        batch = (element.findtext("batch_size") or "1").strip()
        if element.get("matching", "auto").strip() == "lock" and batch != "1":
            yield refusal(
                f"{run.path}: <ffsocket name='{element.get('name', '')}'> has matching='lock' and batches, which do "
                "not go together; write matching='any'"
            )


def _committees(run, potential, name):
    """<ffcommittee>: with parse_json i-PI takes the mean of `committee_pot` and ignores the energy that is sent."""
    for element in run.root.iter("ffcommittee"):
        where = f"{run.path}: <ffcommittee name='{element.get('name', '').strip()}'>"
        parses = _is(element.findtext("parse_json"))
        if parses and potential is not None and not getattr(potential, "drives_with_mean", True):
            yield refusal(
                f"{where} reads the members with parse_json and drives with their plain mean, not with what {name} "
                "says (a member, weights, a weighted baseline, or a limit of the uncertainty); take the <ffsocket> out "
                "of the <ffcommittee>"
            )
        if (element.findtext("weights") or "").strip():
            yield warning(
                f"{where} has <weights>, which i-PI 3.3 reads and ignores; give `weights` in a POTENTIAL.yaml"
            )
        if element.find("ffdirect") is not None and run.root.find("output/checkpoint") is not None:
            yield refusal(
                f"{where} holds an <ffdirect>, with which i-PI 3.3 fails at the first checkpoint; use <ffsocket>"
            )
        if parses and (element.findtext("baseline_name") or "").strip():
            yield warning(
                f"{where} has a baseline, for which i-PI needs forces of the members: start `comitia serve --extras "
                "pseudo_members` and print committee_member_energies, or take the weighted baseline of a POTENTIAL.yaml"
            )


def _printed_extras(run):
    """(extra types, element) of every <trajectory> of extras of the potential."""
    for element in run.root.iterfind("output/trajectory"):
        if (element.text or "").strip() == "extras":
            yield [name.strip() for name in element.get("extra_type", "raw").split(",")], element


def _extras(run, potential):
    printed, wrong = list(_printed_extras(run)), []
    for names, element in printed:
        where = f"{run.path}: <trajectory filename='{element.get('filename', '').strip()}'>"
        if names == ["raw"]:
            wrong.append(names)
            yield warning(
                f"{where} prints extras without extra_type, as text that `comitia reweight` does not read; write "
                "extra_type='committee_pot'"
            )
        if "committee_pot" in names and run.n_beads > 1 and element.get("bead", "-1").strip() != "-1":
            yield warning(
                f"{where} prints one bead of {run.n_beads}; averages need committee_pot of all: remove `bead`"
            )
        for finding in _never_sent(run, potential, names, where):
            wrong.append(names)
            yield finding
    if getattr(potential, "baseline", None) is not None and not any("baseline_pot" in names for names, _ in printed):
        yield warning(
            f"{run.path}: <output> does not print baseline_pot, which `comitia reweight --baseline` needs; add "
            "<trajectory filename='baseline_pot' stride='1' extra_type='baseline_pot'> extras </trajectory>"
        )
    if getattr(potential, "limit", None) is not None and not any("uncertainty_bias" in names for names, _ in printed):
        yield warning(
            f"{run.path}: <output> does not print uncertainty_bias, without which no average of this run can be "
            "reweighted (`comitia reweight --bias`); add <trajectory filename='uncertainty_bias' stride='1' "
            "extra_type='uncertainty_bias'> extras </trajectory>"
        )
    committee = [element for names, element in printed if names == ["committee_pot"]]
    if potential is None or potential.n_members < 2 or (wrong and not committee):
        return
    if not committee:
        yield warning(
            f"{run.path}: <output> does not print the energies of the members, so that there will be no committee "
            "error; add <trajectory filename='committee_pot' stride='1' extra_type='committee_pot'> extras "
            "</trajectory>"
        )
        return
    strides = {element.get("stride", "1").strip() for element in run.root.iterfind("output/properties")}
    stride = committee[0].get("stride", "1").strip()
    if strides and stride not in strides:
        yield warning(
            f"{run.path}: committee_pot is printed every {stride} steps and properties every "
            f"{', '.join(sorted(strides))}; "
            "one stride for both gives every property its members"
        )


def _never_sent(run, potential, names, where):
    """Extras that nobody sends: i-PI ends where it is to print them."""
    others = [e.tag for e in run.root.iter() if e.tag in ("ffdirect", "ffcommittee", "ffmpi")]
    if potential is None or others:
        return
    sent = ()
    if potential.n_members > 1:
        sent = ALWAYS_SENT + (OF_BASELINE if getattr(potential, "baseline", None) is not None else ())
        sent += OF_LIMIT if getattr(potential, "limit", None) is not None else ()
    for name in names:
        if name in SENT_ON_REQUEST and sent:
            yield warning(f"{where} prints {name}, which is only there with `comitia serve --extras {name}`")
        elif name not in (*sent, "raw"):
            has = f"sends {', '.join(sent)}" if sent else "has one member and sends no extras"
            yield refusal(
                f"{where} prints the extra {name!r}, at which i-PI ends: the potential {has}; correct extra_type"
            )


def _contraction(run):
    """Extras of a force on fewer beads than the system has must be interpolated."""
    if not any("committee_pot" in names for names, _ in _printed_extras(run)):
        return
    for element in run.root.iterfind(".//forces/force"):
        n_beads = element.get("nbeads", "-1").strip()
        contracted = n_beads.isdigit() and 0 < int(n_beads) < run.n_beads
        if contracted and "committee_pot" not in _listed(element.findtext("interpolate_extras")):
            yield refusal(
                f"{run.path}: <force forcefield='{element.get('forcefield', '')}'> acts on {n_beads} of {run.n_beads} "
                "beads and committee_pot is printed of all; add <interpolate_extras> [ committee_pot ] "
                "</interpolate_extras>"
            )


def _plumed(run):
    if not run.uses_plumed:
        return
    try:
        require_kernel()
    except ComitiaError as error:
        yield refusal(f"{run.path}: <ffplumed>: {error}")
    for element in run.root.iterfind(".//ffplumed/plumed_dat"):
        name = (element.text or "").strip()
        if run.find_file(name) is None:
            yield refusal(f"{run.path}: <plumed_dat> {name} is not there; correct its path")
    for path in run.plumed_inputs():
        yield from _plumed_input(path)
    finishes_steps = any(_mode(element) in ("metad", "multi") for element in run.root.iter("smotion"))
    if not finishes_steps and any(map(_needs_end_of_step, run.plumed_inputs())):
        yield warning(
            f"{run.path}: <ffplumed> without <smotion mode='metad'>: PLUMED writes neither COLVAR nor HILLS, and "
            "metadynamics adds no hills; see inputs/plumed.xml"
        )


def _needs_end_of_step(path):
    """Whether an input of PLUMED writes something, or has a bias that changes."""
    return grows(path) or any(name == "PRINT" or name.startswith("DUMP") for name, _ in actions(path))


def _plumed_input(path):
    """What an input of PLUMED says that i-PI makes something else of."""
    found = list(actions(path))
    if any("PACE" in keys for _, keys in found) and not any(name == "FLUSH" for name, _ in found):
        yield warning(
            f"{path}: has no FLUSH: PLUMED keeps hills in memory for 10000 steps, and a run that is killed cannot go "
            "on without them; add FLUSH STRIDE=1"
        )
    for name, keys in found:
        if name == "EXTRACV":
            yield refusal(
                f"{path}: EXTRACV: i-PI gives PLUMED positions only; for the uncertainty take uncertainty_limit of a "
                "POTENTIAL.yaml"
            )
        if name == "PRINT" and keys.get("STRIDE", "1") != "1":
            yield warning(
                f"{path}: PRINT STRIDE={keys['STRIDE']}: i-PI 3.3 asks PLUMED one step early, so that it prints one "
                "step after those that i-PI prints, and averages find no row of both; write STRIDE=1"
            )


def _same_atoms(run, atoms):
    """A client holds one set of atoms: every system must start from the same ones, in the same order."""
    for tag in ("file", "positions"):
        for element in run.root.iterfind(f".//initialize/{tag}"):
            mode, name = _mode(element) or "chk", (element.text or "").strip()
            path = run.find_file(name) if mode in STRUCTURE_MODES and mode != "chk" else None
            if path is None:
                continue
            if mode == "xyz":
                yield from _units(path, run)
            try:
                yield from order_findings(read_initial_structure(path), atoms, path, run.path)
            except ComitiaError as error:
                yield refusal(error)


def _units(path, run):
    """What i-PI's mode 'xyz' makes of the second line of a file, and of what the input says besides."""
    like = "`# CELL(abcABC): 10 10 10 90 90 90 positions{angstrom} cell{angstrom}`"
    comment, given = ipi_comment(path), run.structure_units()
    has_cell = run.root.find(".//initialize/cell") is not None
    if comment is None and not has_cell:
        yield refusal(f"{path}: i-PI's mode 'xyz' finds no cell in its second line; write {like}, or mode='ase'")
    elif "positions" not in {*(comment or ()), *given}:
        yield warning(f"{path}: its second line names no units, and i-PI reads bohr; write {like} if they are Å")
    elif "cell" not in {*(comment or ()), *given} and not has_cell:
        yield warning(f"{path}: its second line names no units of the cell, and i-PI reads bohr; write {like}")


def order_findings(found, expected, path, other):
    """A refusal where the atoms of two files are not the same, in the same order: the first that differs is named."""
    ours, theirs = found.get_chemical_symbols(), expected.get_chemical_symbols()
    if len(ours) != len(theirs):
        yield refusal(f"{path}: has {len(ours)} atoms, {other} has {len(theirs)}; use one structure for both")
        return
    for index, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        if one != two:
            yield refusal(
                f"{path}: atom {index} is {one}, in {other} it is {two}; the protocol sends no species, so the order "
                "must be the same: give the client the structure that the server starts from"
            )
            return


def _no_images(run, atoms):
    """Our potentials count every image of an atom; <fflj> of i-PI counts none."""
    if atoms.pbc.any() and run.root.find(".//fflj") is not None:
        yield warning(
            f"{run.path}: <fflj> counts no periodic image of an atom, and the structure is periodic; take a calculator "
            "in a POTENTIAL.yaml for it"
        )


def pressure_findings(run, without_stress):
    """A refusal of constant pressure where a part of the potential has no stress."""
    changes = [e for e in run.root.iter("dynamics") if _mode(e) in CONSTANT_PRESSURE]
    if changes and without_stress:
        yield refusal(
            f"{run.path}: <dynamics mode='{_mode(changes[0])}'> changes the cell, and {', '.join(without_stress)} "
            "gives no stress, so that the virial would be zero; take mode='nvt', or a calculator with stress"
        )


def _swaps(run, system):
    """What <atomswap> of i-PI 3.3 gets wrong."""
    from ase.data import atomic_masses, atomic_numbers

    def mass(symbol):
        return ISOTOPE_MASSES.get(symbol) or atomic_masses[atomic_numbers.get(symbol, 0)]

    motions = [element for element in system.iter("motion") if _mode(element) == "atomswap"]
    if not motions:
        return
    counts = [e.get("nbeads", "1").strip() for tag in ("initialize", "beads") for e in system.iter(tag)]
    n_beads = max([int(count) for count in counts if count.isdigit()], default=1)
    if system.find("ensemble/bias/force") is not None:
        yield refusal(
            f"{run.path}: <atomswap> beside a <bias>: i-PI accepts exchanges by the potential alone, and what the bias "
            "changes is ignored; sample without the bias, or without exchanges"
        )
    present = _symbols(run)
    for element in motions:
        names = _listed(element.findtext("atomswap/names"))
        there = [name for name in dict.fromkeys(names) if present is None or name in present]
        if len(there) < 2:
            yield refusal(
                f"{run.path}: <atomswap> exchanges {', '.join(names) or 'nothing'}, and the structure has "
                f"{', '.join(there) or 'none of them'}: i-PI would search for a pair for ever; name two species that "
                "it has"
            )
        masses = [mass(name) for name in there]
        if n_beads > 1 and masses and max(masses) - min(masses) > 1e-3 * min(masses):
            yield refusal(
                f"{run.path}: <atomswap> of {', '.join(there)}, whose masses differ, with {n_beads} beads: i-PI "
                "ignores the change of the spring energy; exchange with nbeads='1', or give both the same mass"
            )


def _symbols(run):
    """Names of the atoms as i-PI knows them, isotopes included; None where they cannot be read."""
    try:
        found = run.structure_file()
        if found is None:
            return set(run.symbols())
        path, mode = found
        if mode == "xyz":
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            return {line.split()[0] for line in lines[2 : 2 + int(lines[0])]}
        return set(read_initial_structure(path).get_chemical_symbols()) if mode != "chk" else None
    except (ComitiaError, OSError, ValueError, IndexError):
        return None
