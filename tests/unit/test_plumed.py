"""The PLUMED kernel is found where it is named, and what its inputs say of the files beside them."""

import pytest

from comitia.engines.plumed import actions, energy_unit, find_kernel, refuse_lost_hills
from comitia.errors import SettingsError

INPUT = """# UNITS ENERGY=Ha
UNITS LENGTH=A ENERGY=kcal/mol  # and a comment
d: DISTANCE ATOMS=1,2
m: METAD ...
  ARG=d PACE=5
  # of the sum
  HEIGHT=0.1 FILE=HILLS
...
METAD LABEL=other ARG=d PACE=7 UPDATE_FROM=100
PRINT ARG=d,m.rbias FILE=COLVAR
"""


def test_a_named_kernel_is_taken(tmp_path, monkeypatch):
    kernel = tmp_path / "libplumedKernel.so"
    kernel.write_bytes(b"")
    monkeypatch.setenv("PLUMED_KERNEL", str(kernel))
    assert find_kernel() == kernel


def test_a_named_kernel_that_is_not_there_is_not_replaced_by_another(tmp_path, monkeypatch):
    monkeypatch.setenv("PLUMED_KERNEL", str(tmp_path / "nothing.so"))
    assert find_kernel() is None


def test_actions_of_one_line_and_of_several(tmp_path):
    path = tmp_path / "bias.dat"
    path.write_text(INPUT)
    found = list(actions(path))
    assert [name for name, _ in found] == ["UNITS", "DISTANCE", "METAD", "METAD", "PRINT"]
    assert found[0][1] == {"LENGTH": "A", "ENERGY": "kcal/mol"}
    assert found[2][1] == {"LABEL": "m", "ARG": "d", "PACE": "5", "HEIGHT": "0.1", "FILE": "HILLS"}
    assert found[3][1]["LABEL"] == "other"


@pytest.mark.parametrize(
    ("units", "expected"),
    [("ENERGY=eV", 1.0), ("ENERGY=kcal/mol", 0.0433641), ("LENGTH=A", 0.0103643), ("ENERGY=96.485307", 1.0)],
)
def test_the_unit_of_energies_is_that_of_the_input(tmp_path, units, expected):
    (tmp_path / "bias.dat").write_text(INPUT.replace("LENGTH=A ENERGY=kcal/mol", units))
    assert energy_unit(tmp_path / "COLVAR") == pytest.approx(expected, rel=1e-5)
    assert energy_unit(tmp_path / "another") is None


def test_an_energy_that_plumed_does_not_have_is_refused(tmp_path):
    (tmp_path / "bias.dat").write_text(INPUT.replace("kcal/mol", "volts"))
    with pytest.raises(SettingsError, match="ENERGY of UNITS is 'volts'"):
        energy_unit(tmp_path / "COLVAR")


def test_hills_that_were_not_on_disk_are_missed(tmp_path):
    path, hills = tmp_path / "bias.dat", tmp_path / "HILLS"
    path.write_text(INPUT)
    hills.write_text("#! FIELDS time d height\n 5.0 1 1\n 10.0 1 1\n")
    refuse_lost_hills(path, tmp_path, 14.0, 1.0)
    refuse_lost_hills(path, tmp_path, 10.0, 1.0)
    with pytest.raises(SettingsError, match=r"ends at 10, and the run goes on from 15.*FLUSH"):
        refuse_lost_hills(path, tmp_path, 15.0, 1.0)
    hills.write_text("")
    with pytest.raises(SettingsError, match="ends at 0"):
        refuse_lost_hills(path, tmp_path, 16.0, 1.0)
