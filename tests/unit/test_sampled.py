"""Output of LAMMPS, PLUMED, HDF5 and extended XYZ, and which column of it is meant."""

import h5py
import numpy as np
import pytest
from ipi_files import committee, write_beads, write_properties
from numpy.testing import assert_allclose, assert_array_equal

from comitia.engines.frames import gather
from comitia.engines.row_sources import ArraySource, TextSource
from comitia.engines.sampled import find_columns, open_series
from comitia.engines.text_rows import TextRows
from comitia.errors import SeriesError
from comitia.units import HARTREE

LOG = """LAMMPS (22 Jul 2025 - Update 4)
units {units}
timestep 0.002
run 20
Per MPI rank memory allocation (min/avg/max) = 3.062 | 3.062 | 3.062 Mbytes
   Step          Temp          PotEng         Press          Volume           c_x
         0   80              -1.9513721     1654.0874      1191.016       1
         5   79.448471       -1.9491582     1668.1785      1191.016       2
WARNING: something that LAMMPS says in the middle of a table
        10   77.818808       -1.9425732     1710.0841      1191.016       3
Loop time of 0.000200107 on 1 procs for 20 steps with 32 atoms

Neighs:            672 ave         672 max         672 min
run 15
   Step          Temp          PotEng         Press          Volume           c_x
        10   77.818808       -1.9425732     1710.0841      1191.016       4
        15   75.177736       -1.9317605     1778.841       1191.016       5
        20   75.17"""


def values(series):
    return series.take(np.arange(series.n_frames))


@pytest.mark.parametrize(
    ("units", "energy", "pressure"), [("metal", 1.0, 6.241509e-7), ("real", 0.0433641, 6.324209e-7)]
)
def test_a_log_of_lammps(tmp_path, units, energy, pressure):
    (tmp_path / "log.lammps").write_text(LOG.format(units=units))
    series = open_series(f"{tmp_path / 'log.lammps'}:PotEng,Press,Temp,c_x")
    assert_array_equal(series.steps, [0, 5, 10, 15])
    assert series.units == ["eV", "eV/Å^3", "K", ""]
    assert series.properties == ["potential", "pressure_md", "", ""]
    assert_allclose(
        values(series)[:, 0], np.array([-1.9513721, -1.9491582, -1.9425732, -1.9317605]) * energy, rtol=1e-6
    )
    assert_allclose(values(series)[0, 1], 1654.0874 * pressure, rtol=1e-6)
    assert_array_equal(values(series)[:, 3], [1, 2, 4, 5])
    with pytest.raises(SeriesError, match=r"no column density.*3 PotEng"):
        open_series(f"{tmp_path / 'log.lammps'}:density")
    (tmp_path / "log.lammps").write_text(LOG.format(units=units).replace("79.448471", "nan"))
    with pytest.raises(SeriesError, match=r"log\.lammps, line 8, column 2: nan"):
        open_series(f"{tmp_path / 'log.lammps'}:Temp")


@pytest.mark.parametrize(("unit", "scale"), [("", 1.0), ("UNITS TIME=fs\n", 1e3), ("UNITS TIME=0.5\n", 2.0)])
@pytest.mark.parametrize(("timestep", "picoseconds"), [("timestep 0.0005", 5e-4), ("", 1e-3), ("timestep 1", 1.0)])
def test_plumed_prints_the_time_of_lammps(tmp_path, unit, scale, timestep, picoseconds):
    """Also where the times are whole numbers, which are not steps then."""
    rng = np.random.default_rng(4)
    energies = rng.normal(size=(12, 3)).round(6)
    table = "".join(f"{5 * n} {a} {b} {c}\n" for n, (a, b, c) in enumerate(energies.tolist()))
    (tmp_path / "log.lammps").write_text(
        f"LAMMPS (1 Jan 2025)\nunits metal\n{timestep}\nStep E_a E_b E_c\n{table}Loop time\n"
    )
    rows = "".join(f" {scale * picoseconds * step:.6f} {step}\n" for step in range(2, 60))
    (tmp_path / "COLVAR").write_text(f"#! FIELDS time d\n{rows}")
    (tmp_path / "plumed.dat").write_text(f"{unit}d: DISTANCE ATOMS=1,2\nPRINT ARG=d FILE=COLVAR\n")
    read = gather(f"{tmp_path / 'log.lammps'}:2-4", [f"{tmp_path / 'COLVAR'}:d"], 300.0, "eV").read()
    assert_allclose(read.observables[:, 0], 5 * np.arange(1, 12))
    assert_allclose(read.member_energies, energies[1:])


def test_plumed_counts_the_steps_of_ipi(tmp_path):
    energies = committee(n_beads=1)
    write_beads(tmp_path, "run.committee_pot", np.arange(40), energies)
    rows = "".join(f" {t}.000000 {0.1 * t} {0.5 * t} 9\n" for t in [*range(1, 30), *range(25, 35)])
    (tmp_path / "COLVAR").write_text("#! FIELDS time d m.rbias m.bias\n" + rows)
    potentials = str(tmp_path / "run.committee_pot_0")
    frames = gather(
        potentials, [f"{tmp_path / 'COLVAR'}:d"], 300.0, "eV" if False else None, bias=f"{tmp_path / 'COLVAR'}:m.rbias"
    )
    read = frames.read()
    assert_allclose(read.observables[:, 0], 0.1 * np.arange(1, 35))
    assert_allclose(read.bias, 0.5 * np.arange(1, 35) * HARTREE)
    assert_allclose(read.member_energies, energies[1:35, 0] * HARTREE)
    with pytest.raises(SeriesError, match=r"m\.bias is the bias of metadynamics as it grows.*m\.rbias"):
        gather(potentials, ["potentials"], 300.0, bias=f"{tmp_path / 'COLVAR'}:m.bias")
    text = (tmp_path / "COLVAR").read_text().replace("m.rbias", "other")
    (tmp_path / "COLVAR").write_text(text)
    gather(
        potentials, ["potentials"], 300.0, bias=f"{tmp_path / 'COLVAR'}:m.bias"
    ).read()  # a restraint, for all we know
    (tmp_path / "plumed.dat").write_text("d: DISTANCE ATOMS=1,2\nm: METAD ARG=d PACE=10\n")
    with pytest.raises(SeriesError, match="as it grows"):
        gather(potentials, ["potentials"], 300.0, bias=f"{tmp_path / 'COLVAR'}:m.bias")


def test_data_sets_of_hdf5(tmp_path):
    rng = np.random.default_rng(5)
    energies, volume = rng.normal(size=(50, 4, 3)), rng.normal(size=50)
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["a/energies"], file["a/step"] = energies, np.arange(0, 100, 2)
        file["a/energies"].attrs["unit"] = "hartree"
        file["b/volume"], file["b/steps"] = volume, np.arange(20, 70)
        file["b/volume"].attrs["unit"] = "Å^3"
    frames = gather(f"{tmp_path / 'run.h5'}:a/energies", [f"{tmp_path / 'run.h5'}:b/volume"], 300.0)
    for size in (7, 1_000):
        pieces = list(frames.pieces(size=size))
        found = np.concatenate([piece.member_energies for piece in pieces])
        assert_allclose(found, energies.mean(axis=1)[10:35] * HARTREE)
        assert_array_equal(np.concatenate([piece.observables[:, 0] for piece in pieces]), volume[:50:2])
    assert frames.observables[0].unit == "Å^3"
    driven = gather(
        f"{tmp_path / 'run.h5'}:a/energies", ["potentials"], 300.0, driving=f"{tmp_path / 'run.h5'}:a/energies:2"
    ).read()
    assert_allclose(driven.driving, energies.mean(axis=1)[:, 1] * HARTREE)
    with pytest.raises(SeriesError, match=r"give one of its data sets as .*a/energies, a/step, b/steps, b/volume"):
        gather(str(tmp_path / "run.h5"), ["potentials"], 300.0)
    energies[30, 2, 1] = np.nan
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file["energies"] = energies
    with pytest.raises(SeriesError, match=r"data set /energies, row 30 \(counted from 0\): nan"):
        gather(f"{tmp_path / 'bad.h5'}:energies", ["potentials"], 300.0).read()


def test_labels_of_extended_xyz(tmp_path):
    frame = "1\nProperties=species:S:1:pos:R:3 dipole={value} step={step}\nH 0 0 0\n"
    text = "".join(frame.format(value=f'"{n} {2 * n} 0"', step=3 * n) for n in range(30))
    (tmp_path / "frames.xyz").write_text(text)
    series = open_series(f"{tmp_path / 'frames.xyz'}:dipole")
    assert_array_equal(series.steps, 3 * np.arange(30))
    assert_array_equal(values(series), np.arange(30)[:, None] * [1, 2, 0])
    with pytest.raises(SeriesError, match="frame 0: has no 'charge'; it has dipole, step"):
        open_series(f"{tmp_path / 'frames.xyz'}:charge")


def test_columns_by_number_range_list_and_name():
    labels = ["step", "potential{eV}", "cell_h[0]", "cell_h[1]", "7"]
    plain = ["step", "potential", "cell_h", "cell_h", "7"]
    for column, expected in {
        "2": [1],
        "2-4": [1, 2, 3],
        "potential": [1],
        "potential{eV}": [1],
        "step,cell_h[1],2": [0, 3, 1],
        "7": [4],
        "members": [0, 1, 2, 3, 4],
    }.items():
        assert find_columns(column, labels, "file", [plain]) == expected, column
    for column, words in {
        "0": "no column 0",
        "3-9": "no column 3-9",
        "cell_h": "more than one",
        "x": "no column x",
    }.items():
        with pytest.raises(SeriesError, match=words):
            find_columns(column, labels, "file", [plain])
    assert find_columns(None, [""], "file") == [0]


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_rows_are_taken_in_any_increasing_order_again_and_again(tmp_path, monkeypatch, kept):
    """From memory and from the file alike, in many pieces."""
    monkeypatch.setattr("comitia.engines.text_rows.ROOM", 8 * 4 * 200)
    rng = np.random.default_rng(6)
    expected = rng.normal(size=(3_000, 4))
    np.savetxt(tmp_path / "table", expected, fmt="%.17g")
    assert len(list(TextRows(tmp_path / "table").pieces())) == 24
    source = TextSource(TextRows(tmp_path / "table"), [2, 0], np.array([1.0, 3.0]), kept=kept)
    exact = ArraySource("memory", expected[:, [2, 0]] * [1.0, 3.0])
    assert source.n_rows == exact.n_rows == 3_000
    for _ in range(20):
        rows = np.flatnonzero(rng.random(3_000) < rng.choice([0.001, 0.1, 1.0]))
        for part in np.array_split(rows, 7):
            assert_array_equal(source.take(part), exact.take(part))


def test_a_property_that_does_not_exist_in_this_ensemble_does_not_matter(tmp_path):
    """i-PI prints the pressure of a run at constant volume as nan."""
    columns = {"step": np.arange(40), "volume": np.arange(40.0), "ensemble_pressure": np.full(40, np.nan)}
    write_properties(tmp_path / "run.out", columns)
    assert_array_equal(values(open_series(f"{tmp_path / 'run.out'}:volume"))[:, 0] > 1e-3, np.arange(40) > 0)
    with pytest.raises(SeriesError, match="line 4, column 3: nan"):
        open_series(f"{tmp_path / 'run.out'}:ensemble_pressure")
