"""Which files of a run belong together, and how they are aligned: beads, temperature, what drove the run."""

import numpy as np
import pytest
from ipi_files import committee, write_beads, write_extras, write_properties, write_restart
from numpy.testing import assert_allclose, assert_array_equal

from comitia.engines.frames import gather
from comitia.engines.ipi_files import bead_files
from comitia.engines.tables import printed_resolution
from comitia.errors import SeriesError, UsageError
from comitia.units import HARTREE


def test_energies_are_averaged_over_beads_and_aligned_by_step(tmp_path):
    values = committee()
    write_beads(tmp_path, "run.committee_pot", np.arange(0, 40), values)
    cv = np.random.default_rng(2).normal(size=20)
    write_properties(tmp_path / "run.out", {"step": np.arange(0, 100, 5), "r_gyration{angstrom}": cv})
    frames = gather(str(tmp_path / "run.committee_pot_2"), [f"{tmp_path / 'run.out'}:r_gyration"], 300.0)
    assert frames.n_beads == 4
    assert frames.observables[0].unit == "Å"
    for size in (3, 100):
        pieces = list(frames.pieces(size=size))
        assert [len(piece.member_energies) for piece in pieces] == ([3, 3, 2] if size == 3 else [8])
        energies = np.concatenate([piece.member_energies for piece in pieces])
        assert_allclose(energies, values[::5].mean(axis=1) * HARTREE, rtol=1e-14)
        assert_allclose(np.concatenate([piece.observables[:, 0] for piece in pieces]), cv[:8], rtol=1e-14)
    assert frames.warnings == []


@pytest.mark.parametrize("missing", [0, 2, 3])
def test_a_missing_bead_is_named(tmp_path, missing):
    paths = write_beads(tmp_path, "run.committee_pot", np.arange(40), committee())
    write_restart(tmp_path, n_beads=4)
    paths[missing].unlink()
    with pytest.raises(SeriesError, match=rf"run\.committee_pot_{missing}: 1 of the files of 4 beads missing"):
        bead_files(tmp_path / "run.committee_pot_1")


def test_a_missing_bead_is_named_when_it_is_the_one_asked_for(tmp_path):
    paths = write_beads(tmp_path, "run.committee_pot", np.arange(40), committee())
    paths[0].unlink()
    with pytest.raises(SeriesError, match=r"run\.committee_pot_0: 1 of the files of 4 beads missing"):
        gather(str(paths[0]), ["potentials"], 300.0)


def test_a_missing_last_bead_is_known_from_other_files(tmp_path):
    paths = write_beads(tmp_path, "run.committee_pot", np.arange(40), committee(n_beads=16))
    write_beads(tmp_path, "run.dipole", np.arange(40), committee(n_beads=16), quantity="dipole")
    paths[15].unlink()
    with pytest.raises(SeriesError, match=r"run\.committee_pot_15"):
        bead_files(tmp_path / "run.committee_pot_00")


def test_one_bead_printed_of_many_is_refused(tmp_path):
    write_extras(tmp_path / "run.committee_pot_00", np.arange(40), committee()[:, 0])
    with pytest.raises(SeriesError, match=r"run\.committee_pot_01.*9 of the files of 10 beads"):
        bead_files(tmp_path / "run.committee_pot_00")


@pytest.mark.parametrize("restart", [False, True])
def test_numbered_checkpoints_are_not_beads(tmp_path, restart):
    paths = write_beads(tmp_path, "run.committee_pot", np.arange(40), committee(n_beads=1))
    for number in range(4):
        (tmp_path / f"run.checkpoint_{number}").write_text("<simulation verbosity='low'>\n</simulation>\n")
    if restart:
        write_restart(tmp_path)
    assert bead_files(paths[0]) == paths


def test_files_of_an_older_run_are_refused(tmp_path):
    write_beads(tmp_path, "run.committee_pot", np.arange(40), committee(n_beads=4))
    write_beads(tmp_path, "run.committee_pot", np.arange(40), committee(n_beads=12))
    with pytest.raises(SeriesError, match="digits"):
        bead_files(tmp_path / "run.committee_pot_0")
    for bead in range(4):
        (tmp_path / f"run.committee_pot_{bead}").unlink()
    write_restart(tmp_path, n_beads=10)
    with pytest.raises(SeriesError, match="a run with 10 beads"):
        bead_files(tmp_path / "run.committee_pot_00")


def test_a_replica_exchange_without_its_checkpoint_is_refused(tmp_path):
    write_beads(tmp_path, "0_remd.committee_pot", np.arange(40), committee(n_beads=1))
    gather(str(tmp_path / "0_remd.committee_pot_0"), ["potentials"], 300.0).read()
    (tmp_path / "remd.remd_idx").write_text("10 0 1\n")
    with pytest.raises(SeriesError, match=r"replica exchange.*RESTART"):
        gather(str(tmp_path / "0_remd.committee_pot_0"), ["potentials"], 300.0)
    # a replica exchange of another name in the same folder does not matter
    write_beads(tmp_path, "other.committee_pot", np.arange(40), committee(n_beads=1))
    gather(str(tmp_path / "other.committee_pot_0"), ["potentials"], 300.0).read()


@pytest.mark.parametrize(
    ("label", "values", "words"),
    [
        ("ensemble_temperature{kelvin}", np.full(40, 320.0), "sampled at 320 K"),
        ("ensemble_temperature{kelvin}", np.tile([300.0, 330.0], 20), "changes from 300 to 330 K"),
        ("temperature{kelvin}", 450 + 20 * np.random.default_rng(1).normal(size=80), "mean of temperature"),
    ],
)
def test_another_temperature_is_refused(tmp_path, label, values, words):
    n_frames = len(values)
    write_beads(tmp_path, "run.committee_pot", np.arange(n_frames), committee(n_frames=n_frames, n_beads=1))
    write_properties(
        tmp_path / "run.out", {"step": np.arange(n_frames), label: values, "volume": np.arange(float(n_frames))}
    )
    with pytest.raises(SeriesError, match=words):
        gather(str(tmp_path / "run.committee_pot_0"), [f"{tmp_path / 'run.out'}:volume"], 300.0).read()


def test_a_potential_that_is_not_the_mean_of_the_members_is_refused(tmp_path):
    """Driven by something else, or beads that were left out without a trace: the mean is not what was sampled."""
    values = committee(n_beads=2)
    write_extras(tmp_path / "run.committee_pot_0", np.arange(40), values[:, 0])
    observed = {"step": np.arange(40), "potential": values.mean(axis=(1, 2)), "volume": np.arange(40.0)}
    write_properties(tmp_path / "run.out", observed)
    with pytest.raises(SeriesError, match="is not the mean of the members"):
        gather(str(tmp_path / "run.committee_pot_0"), [f"{tmp_path / 'run.out'}:volume"], 300.0).read()
    write_extras(tmp_path / "run.committee_pot_1", np.arange(40), values[:, 1])
    frames = gather(str(tmp_path / "run.committee_pot_0"), [f"{tmp_path / 'run.out'}:volume"], 300.0)
    frames.read()
    assert frames.driving == "mean"
    driven = gather(
        str(tmp_path / "run.committee_pot_0"),
        [f"{tmp_path / 'run.out'}:volume"],
        300.0,
        driving=f"{tmp_path / 'run.out'}:potential",
        bias=f"{tmp_path / 'run.out'}:potential",
    ).read()
    assert_allclose(driven.driving, values.mean(axis=(1, 2)) * HARTREE, rtol=1e-14)
    assert_allclose(driven.bias, driven.driving)
    with pytest.raises(SeriesError, match="not an energy"):
        gather(str(tmp_path / "run.committee_pot_0"), ["potentials"], 300.0, driving=f"{tmp_path / 'run.out'}:volume")


def test_coarse_printing_is_reported(tmp_path):
    values = 0.01 * committee(n_beads=1) - 4000
    write_beads(tmp_path, "run.committee_pot", np.arange(40), values, number="%16.8e")
    frames = gather(str(tmp_path / "run.committee_pot_0"), ["potentials"], 300.0)
    frames.read()
    (warning,) = frames.warnings
    assert "floatformat" in warning
    assert printed_resolution(tmp_path / "run.committee_pot_0") == pytest.approx(1e-5)


def test_tables_pair_row_by_row_and_name_their_columns(tmp_path):
    rng = np.random.default_rng(3)
    np.savetxt(tmp_path / "pots", rng.normal(size=(30, 2)))
    (tmp_path / "colvar").write_text("#! FIELDS time d rbias\n" + "".join(f"{t} {t * 2} 0.5\n" for t in range(30)))
    frames = gather(
        str(tmp_path / "pots"), [f"{tmp_path / 'colvar'}:d"], 300.0, units="eV", bias=f"{tmp_path / 'colvar'}:rbias"
    ).read()
    assert_array_equal(frames.observables[:, 0], 2.0 * np.arange(30))
    assert_array_equal(frames.bias, np.full(30, 0.5))
    with pytest.raises(SeriesError, match=r"3 columns; say which one.*1 time, 2 d, 3 rbias"):
        gather(str(tmp_path / "pots"), [str(tmp_path / "colvar")], 300.0)
    with pytest.raises(SeriesError, match=r"no column 0 \(columns count from 1\)"):
        gather(str(tmp_path / "pots"), [f"{tmp_path / 'colvar'}:0"], 300.0)
    np.savetxt(tmp_path / "short", np.zeros(29))
    with pytest.raises(SeriesError, match=r"short has 29 frames, .*pots has 30"):
        gather(str(tmp_path / "pots"), [str(tmp_path / "short")], 300.0)
    members = gather(str(tmp_path / "pots"), [f"{tmp_path / 'pots'}:members"], 300.0).read()
    assert members.estimators.shape == (30, 1, 2)


def test_units_of_extras_are_fixed(tmp_path):
    write_beads(tmp_path, "run.committee_pot", np.arange(40), committee(n_beads=1))
    with pytest.raises(UsageError, match="hartree"):
        gather(str(tmp_path / "run.committee_pot_0"), ["potentials"], 300.0, units="eV")
