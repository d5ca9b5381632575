"""Errors of a fit by the kernel: those of the design matrix, and its transposed product."""

import models
import numpy as np
import pytest
from fits import CUTOFF
from numpy.testing import assert_allclose

from comitia.density import Descriptor
from comitia.potential import Potential
from comitia.structures import LabelledStructure
from comitia.training.normal_equations import KINDS
from comitia.training.residuals import Residuals
from comitia.training.validation import Record

SPECIES = (18, 36)
WEIGHT = {"energy": 0.7, "forces": 2.0, "virial": 0.3}


@pytest.fixture(scope="module")
def descriptor():
    basis = {"n_max": [6, 4, 3], "l_max": [0, 3, 2], "max_features": 120, "radial": "bessel"}
    return Descriptor.build(SPECIES, CUTOFF, **basis)


def structures(descriptor, labels):
    """Crystals, a molecule among them, with random labels of the given kinds."""
    rng, found = np.random.default_rng(5), []
    for number in range(6):
        atoms = models.crystal(SPECIES, (1, 1, 1), rattle=0.1, seed=number)
        if number == 3:
            atoms.pbc = False
        n_atoms = len(atoms)
        symmetric = rng.normal(size=(3, 3))
        value = {"energy": rng.normal(), "forces": rng.normal(size=(n_atoms, 3)), "virial": symmetric + symmetric.T}
        given = [value[kind] if kind in labels else None for kind in KINDS]
        found.append(LabelledStructure(atoms, *given, "default", f"made up, frame {number}"))
    return found


@pytest.mark.parametrize("labels", [KINDS, ("energy",), ("forces",), ("virial",), ("energy", "virial")])
def test_errors_and_gradient_are_those_of_the_rows(descriptor, labels):
    some, rng = structures(descriptor, labels), np.random.default_rng(1)
    weights = rng.normal(size=(1, descriptor.width))
    group, scale = np.array([0, 1, 0, 2, 1, 0]), [{kind: rng.uniform(0.5, 2) for kind in KINDS} for _ in some]
    potential = Potential(descriptor, weights, np.zeros(2))
    records, held_out, gradient = Residuals(some, group, scale, 2)(potential, WEIGHT)
    assert held_out == []
    order, expected = np.argsort(group, kind="stable"), np.zeros(descriptor.width)
    for record, index in zip(records, order, strict=True):
        structure, design = some[index], descriptor.design(some[index].atoms)
        assert record.origin == structure.origin
        virial = None if structure.virial is None else structure.virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        targets = {"energy": structure.energy, "forces": structure.forces, "virial": virial}
        rows = {"energy": design.features[None], "forces": design.forces, "virial": design.virial}
        for kind, name in (("energy", "energy_error"), ("forces", "force_error"), ("virial", "virial_error")):
            if targets[kind] is None:
                assert getattr(record, name) is None
                continue
            error = np.ravel(targets[kind]) - rows[kind] @ weights[0]
            assert_allclose(np.ravel(getattr(record, name)), error, rtol=1e-10, atol=1e-10 * np.abs(error).max())
            expected += WEIGHT[kind] * scale[index][kind] ** 2 * (rows[kind].T @ error)
    assert_allclose(gradient, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_structures_of_a_fold_are_judged_by_its_committee(descriptor):
    some, rng = structures(descriptor, KINDS), np.random.default_rng(2)
    group, folds = np.array([0, 1, 0, 2, 1, 0]), np.array([0, 1, -1])
    members = {fold: rng.normal(size=(4, descriptor.width)) for fold in (0, 1)}
    held = {fold: Potential(descriptor, weights, np.zeros(2)) for fold, weights in members.items()}
    whole = Potential(descriptor, rng.normal(size=(1, descriptor.width)), np.zeros(2))
    errors = Residuals(some, group, [dict.fromkeys(KINDS, 1.0)] * 6, 2)
    records, held_out, gradient = errors(whole, None, held_out=held, folds=folds)
    assert not gradient.any()
    assert len(records) == 6
    assert [(record.origin[-1], record.fold) for record in held_out] == [
        ("0", 0),
        ("2", 0),
        ("5", 0),
        ("1", 1),
        ("4", 1),
    ]
    for record in held_out:
        structure = some[int(record.origin[-1])]
        design, weights = descriptor.design(structure.atoms), members[record.fold]
        assert_allclose(record.energy_error, structure.energy - design.features @ weights.mean(axis=0), rtol=1e-9)
        assert_allclose(record.energy_spread, (weights @ design.features).std(ddof=1), rtol=1e-9)
        spread = (design.forces @ weights.T).std(axis=1, ddof=1)
        assert_allclose(record.force_spread, spread, rtol=1e-8, atol=1e-10 * spread.max())
        assert isinstance(record, Record)
