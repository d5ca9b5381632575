"""Guards: what is uncertain is said, collected or stops; what is not finite is kept."""

import logging

import numpy as np
import pytest
from ase.io import read
from models import crystal, small_model
from numpy.testing import assert_allclose

from comitia.engines.guards import FrameCollection, UncertaintyGuard, save_failed
from comitia.errors import ModelError, NumericalError, UncertaintyError


@pytest.fixture
def atoms():
    return crystal(repeats=(1, 1, 1), seed=1)


def predict(atoms, positions, members=False):
    evaluator = small_model().evaluator(atoms.numbers, atoms.pbc, 1)
    cells = np.repeat(atoms.cell.array[None], len(positions), axis=0)
    return positions, cells, evaluator.compute(positions, cells, members=members)


def moved(atoms, n, scale=0.3):
    rng = np.random.default_rng(2)
    return atoms.positions + scale * rng.normal(size=(n, len(atoms), 3))


def test_frames_above_the_threshold_are_collected(atoms, tmp_path):
    batch = predict(atoms, moved(atoms, 8))
    sigma = batch[2].energy_uncertainties / len(atoms)
    threshold = float(np.median(sigma))
    guard = UncertaintyGuard("collect", atoms, energy=threshold, path=tmp_path / "frames.xyz")
    guard(*batch)
    frames = read(tmp_path / "frames.xyz", ":")
    assert len(frames) == guard.n_passed == np.count_nonzero(sigma > threshold)
    above = np.flatnonzero(sigma > threshold)
    for frame, s in zip(frames, above, strict=True):
        assert_allclose(frame.positions, batch[0][s], atol=1e-8)
        assert_allclose(frame.cell.array, atoms.cell.array)
        assert (frame.numbers == atoms.numbers).all()
        assert frame.info["structure"] == s + 1
        assert_allclose(frame.info["energy_uncertainty_per_atom"], sigma[s], rtol=1e-12)


def test_a_stop_ends_with_its_code_and_the_frame_on_disk(atoms, tmp_path):
    guard = UncertaintyGuard("stop", atoms, energy=0.0, path=tmp_path / "frames.xyz")
    with pytest.raises(
        UncertaintyError, match=r"structure 1: sigma_E .* meV/atom, allowed 0.00; 1 frames in .*label"
    ) as e:
        guard(*predict(atoms, moved(atoms, 1)))
    assert e.value.exit_code == 5
    assert len(read(tmp_path / "frames.xyz", ":")) == 1


def test_a_warning_is_said_once_and_writes_nothing(atoms, tmp_path, caplog):
    guard = UncertaintyGuard("warn", atoms, energy=0.0, path=tmp_path / "frames.xyz")
    with caplog.at_level(logging.WARNING):
        guard(*predict(atoms, moved(atoms, 5)))
    assert caplog.text.count("sigma_E") == 1
    assert guard.n_passed == 5
    assert not (tmp_path / "frames.xyz").exists()


def test_the_force_on_the_worst_atom_is_named(atoms, tmp_path):
    model = small_model()
    guard = UncertaintyGuard(
        "stop", atoms, forces=1e-6, path=tmp_path / "frames.xyz", force_uncertainty=model.force_uncertainty
    )
    assert guard.members
    positions = moved(atoms, 1)
    worst = atoms.copy()
    worst.positions = positions[0]
    norms = np.linalg.norm(model.compute(worst, members=True).force_uncertainty, axis=1)
    with pytest.raises(UncertaintyError, match=f"sigma_F {norms.max():.3f} eV/Å on atom {norms.argmax()}"):
        guard(*predict(atoms, positions, members=True))


def test_near_duplicates_are_left_out(atoms, tmp_path):
    frames = FrameCollection(tmp_path / "frames.xyz", atoms)
    cell = atoms.cell.array
    wrapped = atoms.positions + np.random.default_rng(0).integers(-3, 4, (len(atoms), 3)) @ cell
    assert frames.add(atoms.positions, cell)
    assert not frames.add(atoms.positions + 0.01, cell)
    assert not frames.add(wrapped, cell)
    assert frames.add(atoms.positions, 1.1 * cell)
    assert frames.add(moved(atoms, 1)[0], cell)
    assert len(read(tmp_path / "frames.xyz", ":")) == frames.n_frames == 3


def test_what_is_not_finite_is_kept_as_it_is(atoms, tmp_path):
    positions = atoms.positions[None].copy()
    positions[0, 2, 1] = np.nan
    error = NumericalError("the force is nan", {"atom": 2})
    said = save_failed(tmp_path / "failed.xyz", atoms, positions, atoms.cell.array[None], error)
    assert said == f"atom 2 is {atoms.symbols[2]}, the structure is in {tmp_path / 'failed.xyz'}"
    found = read(tmp_path / "failed.xyz")
    assert np.isnan(found.positions[2, 1])
    assert_allclose(np.delete(found.positions, 2, axis=0), np.delete(atoms.positions, 2, axis=0), atol=1e-8)
    assert "cannot be written" in save_failed(tmp_path / "no" / "x", atoms, positions, atoms.cell.array[None], error)


def test_guards_that_guard_nothing_are_refused(atoms):
    with pytest.raises(ModelError, match="without a threshold"):
        UncertaintyGuard("stop", atoms)
    with pytest.raises(ModelError, match="no uncertainty of forces"):
        UncertaintyGuard("stop", atoms, forces=1.0)
    with pytest.raises(ModelError, match="one member has no uncertainty"):
        UncertaintyGuard("stop", atoms, energy=1.0)(*predict_single(atoms))


def predict_single(atoms):
    evaluator = small_model(n_members=1).evaluator(atoms.numbers, atoms.pbc, 1)
    positions, cells = atoms.positions[None], atoms.cell.array[None]
    return positions, cells, evaluator.compute(positions, cells)
