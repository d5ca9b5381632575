"""The weighted baseline of i-PI's own <ffcommittee>, fed with all members or with two, and ours: the same dynamics."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from models import crystal, small_model, write_ipi_xyz
from numpy.testing import assert_allclose
from programs import ended_in_order, i_pi, programs, serve

from comitia.cli import main
from comitia.engines.ipi_input import read_xml
from comitia.potential import Potential
from comitia.units import HARTREE

INPUTS = Path(__file__).resolve().parents[2] / "inputs"
UNCERTAINTY = 0.002  # eV, of the baseline
EXTRAS = ("committee_uncertainty", "wb_mixing", "baseline_pot")
POTENTIAL = f"""
committee: corrections.safetensors
baseline: {{model: base.safetensors}}
baseline_uncertainty: {UNCERTAINTY}
"""


def socket(name, address):
    return f"<ffsocket name='{name}' mode='unix' pbc='False'> <address> {address} </address> </ffsocket>"


def committee(name, base, corrections):
    """i-PI's weighted baseline of two sockets."""
    return (
        f"<ffcommittee name='{name}'> {socket('base', base)} {socket('corrections', corrections)} "
        "<baseline_name> base </baseline_name> <parse_json> True </parse_json> "
        f"<baseline_uncertainty units='electronvolt'> {UNCERTAINTY} </baseline_uncertainty> </ffcommittee>"
    )


def prepare(folder, n_steps, forcefields, extras, thermal=False):
    """An input from the template in inputs/, with one system for every force field."""
    text = (INPUTS / "nve.xml").read_text().replace("> 1000 </total_steps>", f"> {n_steps} </total_steps>")
    text = text.replace("potential ]", "potential, virial_md ]").replace("> 1.0 </timestep>", "> 4.0 </timestep>")
    if thermal:
        bath = "<thermostat mode='langevin'> <tau units='femtosecond'> 50 </tau> </thermostat>"
        text = text.replace("<dynamics mode='nve'>", f"<dynamics mode='nvt'> {bath}")
    else:
        text = text.replace("<velocities mode='thermal' units='kelvin'> 80 </velocities>", "")
    printed = "".join(
        f"<trajectory filename='{name}' stride='1' extra_type='{name}'> extras </trajectory>" for name in extras
    )
    text = text[: text.index("<trajectory filename='committee_pot'")] + printed + text[text.index("<checkpoint") :]
    start, end = text.index("<ffsocket"), text.index("</ffsocket>") + len("</ffsocket>")
    text = text[:start] + "".join(forcefields.values()) + text[end:]
    start, end = text.index("<system>"), text.index("</system>") + len("</system>")
    systems = [
        text[start:end].replace("<system>", f"<system prefix='{name}'>").replace("'comitia'/>", f"'{name}'/>")
        for name in forcefields
    ]
    (folder / "nve.xml").write_text(text[:start] + "".join(systems) + text[end:])


def addresses(*names):
    """Names of sockets for i-PI, and paths for clients: i-PI puts those inside a committee into /tmp, always."""
    names = [f"comitia-test-{os.getpid()}-{name}" for name in names]
    return names, [f"/tmp/ipi_{name}" for name in names]


@pytest.fixture
def folder(tmp_path):
    corrections, base = small_model(seed=3), small_model(n_members=1)
    mean = corrections.weights.mean(axis=0)
    weights = 0.05 * mean + 0.5 * (corrections.weights - mean)
    corrections = Potential(corrections.descriptor, weights, [0.0], metadata={"baseline": "base.safetensors"})
    corrections.save(tmp_path / "corrections.safetensors")
    base.save(tmp_path / "base.safetensors")
    (tmp_path / "potential.yaml").write_text(POTENTIAL)
    write_ipi_xyz(tmp_path / "init.xyz", crystal(repeats=(2, 2, 2), rattle=0.15, seed=1))
    return tmp_path


CORRECTIONS = {"model": "corrections.safetensors"}


def test_from_all_members_or_from_two_or_by_ourselves_it_is_the_same(folder):
    """Energies, virials, weights and positions to 1e-8, of three systems in one run."""
    (base_all, all_of_them, base_two, two), paths = addresses("base-all", "all", "base-two", "two")
    forcefields = {
        "all": committee("all", base_all, all_of_them),
        "two": committee("two", base_two, two),
        "own": socket("own", "comitia"),
    }
    prepare(folder, 20, forcefields, EXTRAS)
    with programs(folder) as start:
        assert ended_in_order(
            i_pi(start),
            serve(start, model="base.safetensors", names=[paths[0], paths[2]]),
            serve(
                start, "--corrections", "--extras", "committee_force,committee_virial", names=[paths[1]], **CORRECTIONS
            ),
            serve(start, "--extras", "pseudo_members", names=[paths[3]], **CORRECTIONS),
            serve(start, model="potential.yaml"),
        )
    systems = [element.get("prefix") for element in read_xml(folder / "RESTART").iter("system")]
    positions = [
        np.array(q.text.strip().strip("[]").split(","), float)
        for q in read_xml(folder / "RESTART").iterfind(".//beads/q")
    ]

    def result(name):
        found = {extra: np.loadtxt(folder / f"{name}_nve.{extra}_0") for extra in EXTRAS}
        found["potential"], found["virial"] = np.split(np.loadtxt(folder / f"{name}_nve.out")[:, 5:], [1], axis=1)
        return found | {"positions": positions[systems.index(name)]}

    expected = result("all")
    for name in ("two", "own"):
        for quantity, values in result(name).items():
            print(f"{name}: {quantity} within {np.abs(values - expected[quantity]).max():.1e}")
            assert_allclose(values, expected[quantity], rtol=1e-8, atol=1e-8, err_msg=f"{name}: {quantity}")
    assert 0.1 < expected["wb_mixing"].min() < expected["wb_mixing"].max() - 1e-3 < 0.9  # it acts, and changes


@pytest.mark.long
def test_averages_need_the_members_themselves_and_the_baseline(folder, monkeypatch, capsys):
    """What i-PI prints of a run with pseudo-members, and what `comitia reweight` takes and refuses of it."""
    (base, two), paths = addresses("base-two", "two")
    prepare(
        folder,
        300,
        {"two": committee("two", base, two)},
        [*EXTRAS, "committee_pot", "committee_member_energies"],
        thermal=True,
    )
    with programs(folder) as start:
        assert ended_in_order(
            i_pi(start),
            serve(start, model="base.safetensors", names=paths[:1]),
            serve(start, "--extras", "pseudo_members", names=paths[1:], **CORRECTIONS),
        )
    monkeypatch.chdir(folder)
    pair, members = np.loadtxt("two_nve.committee_pot_0"), np.loadtxt("two_nve.committee_member_energies_0")
    assert (pair.shape, members.shape) == ((301, 2), (301, 4))
    assert_allclose(pair.mean(axis=1), members.mean(axis=1), rtol=1e-12)
    assert_allclose(pair.std(axis=1, ddof=1), members.std(axis=1, ddof=1), rtol=1e-9)

    def reweight(*options):
        given = ["--observable", "two_nve.out:potential", "--temperature", "80", "--json", "out.json", *options]
        monkeypatch.setattr("sys.argv", ["comitia", "reweight", *given])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, capsys.readouterr().err

    code, said = reweight("--potentials", "two_nve.committee_pot_0")
    assert code == 3
    assert "pseudo-members" in said
    given = ["--potentials", "two_nve.committee_member_energies_0"]
    code, said = reweight(*given)
    assert code == 3
    assert "driven by a baseline" in said
    code, said = reweight(*given, "--baseline", "two_nve.baseline_pot_0", "--driving", "two_nve.out:potential")
    assert code == 0, said
    totals = (members + np.loadtxt("two_nve.baseline_pot_0")[:, None]) * HARTREE
    found = json.loads(Path("out.json").read_text())
    assert_allclose(found["members"], totals.mean(axis=0), atol=5 * found["total_error"])
