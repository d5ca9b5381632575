"""Outputs of i-PI are cut to the step of a saved state, whatever a kill left at their end."""

import pytest

from comitia.engines.ipi_input import IpiInput
from comitia.engines.ipi_rewind import rewind_outputs

INPUT = """<simulation> <output prefix='run'>
  <properties filename='out' stride='2'> [ virial_md, step, potential ] </properties>
  <properties filename='other'> [ potential ] </properties>
  <trajectory filename='pos' stride='4' format='xyz'> positions{angstrom} </trajectory>
  <trajectory filename='protein' stride='4' format='pdb'> positions{angstrom} </trajectory>
  <trajectory filename='committee_pot' stride='2' extra_type='committee_pot'> extras </trajectory>
</output> </simulation>
"""


PLUMED = """<simulation> <step>{step}</step> <ffplumed>
  <plumed_dat> {plumed_dat} </plumed_dat> <plumed_step> {step} </plumed_step>
</ffplumed> </simulation>"""


def written(last_step):
    """What i-PI has written after `last_step` steps, by name of the file."""
    head = "# cols.    1-6   --> virial_md : in blocks\n# column   7     --> step : the step\n"
    virial = "  1.0e+00" * 6
    even, fourth = range(0, last_step + 1, 2), range(0, last_step + 1, 4)
    return {
        "run.out": head + "".join(f"{virial}  {s:.8e}  -1.0e+00\n" for s in even),
        "run.pos_0.xyz": "".join(
            f"1\n# CELL(abcABC): 9 9 9 90 90 90  Step:  {s}  Bead: 0\n Ar 0 0 {s}\n" for s in fourth
        ),
        "run.protein_0.pdb": "".join(f"TITLE  Step:  {s}  Bead: 0\nATOM {s}\nEND\n" for s in fourth),
        "run.committee_pot_00": "".join(f" #EXTRAS(committee_pot)# Step:  {s} \n -1.0 -2.0\n" for s in even),
        "0_run.out": head + "".join(f"{virial}  {s:.8e}  -1.0e+00\n" for s in even),
    }


@pytest.fixture
def run(tmp_path):
    (tmp_path / "input.xml").write_text(INPUT)
    return IpiInput(tmp_path / "input.xml")


def saved_state(folder, text):
    (folder / "RESTART").write_text(text)
    return IpiInput(folder / "RESTART")


@pytest.mark.parametrize("step", [0, 3, 8, 19, 20])
@pytest.mark.parametrize("half_a_line", [False, True])
def test_what_is_later_than_the_state_is_gone(run, tmp_path, step, half_a_line):
    halves = {"out": "  1.0e+0", "xyz": "1\n# CELL(abcABC): 9", "pdb": "TITLE  St", "committee_pot_00": " #EXTRAS(comm"}
    for name, text in written(20).items():
        (tmp_path / name).write_text(text + (halves[name.rpartition(".")[2]] if half_a_line else ""))
    (tmp_path / "run.other").write_text("# no steps: not touched\n 1.0\n")
    cut = rewind_outputs(tmp_path, run, saved_state(tmp_path, f"<simulation> <step>{step}</step> </simulation>"))
    for name, text in written(step).items():
        assert (tmp_path / name).read_text() == text
    assert (tmp_path / "run.other").read_text() == "# no steps: not touched\n 1.0\n"
    assert bool(cut) == (step < 20 or half_a_line)


@pytest.mark.parametrize(("units", "picosecond"), [("", 1), ("UNITS LENGTH=A TIME=fs", 1000), ("UNITS TIME=2.0", 0.5)])
def test_a_hill_of_plumed_later_than_the_state_is_gone(run, tmp_path, units, picosecond):
    def hills(last_step):
        rows = [f" {step * picosecond:.6f}  3.5  0.1\n" for step in range(5, last_step + 1, 5)]
        return "#! FIELDS time distance height\n#! SET multivariate false\n" + "".join(rows)

    (tmp_path / "plumed.dat").write_text(f"{units}\nmetad: METAD ARG=distance FILE=HILLS\n")
    (tmp_path / "HILLS").write_text(hills(20) + " 25.0000")
    (tmp_path / "bck.0.HILLS").write_text(hills(20))
    (tmp_path / "notes").write_text(" 100.0 of something else\n")
    cut = rewind_outputs(
        tmp_path, run, saved_state(tmp_path, PLUMED.format(step=10, plumed_dat=tmp_path / "plumed.dat"))
    )
    assert cut == [tmp_path / "HILLS"]
    assert (tmp_path / "HILLS").read_text() == hills(10)
    assert (tmp_path / "bck.0.HILLS").read_text() == hills(20)
    assert (tmp_path / "notes").read_text() == " 100.0 of something else\n"
