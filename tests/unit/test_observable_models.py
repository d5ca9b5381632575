"""Several models of an observable under several potentials, against a table computed by brute force."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from series import autoregressive

from comitia.errors import SeriesError
from comitia.thermodynamics import reweight_models
from comitia.thermodynamics.observable_models import committee_variances
from comitia.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE


def brute_force(models, energies, method):
    """Every entry of the table by explicit loops over frames, and the variance over all of its entries."""
    n_models, n_potentials = models.shape[1], energies.shape[1]
    table = np.zeros((n_models, n_potentials))
    for i in range(n_models):
        for k in range(n_potentials):
            h = [(energies[t, k] - energies[t].mean()) / KT for t in range(len(models))]
            if method == "direct":
                weights = [np.exp(-value) for value in h]
                table[i, k] = sum(w * a for w, a in zip(weights, models[:, i], strict=True)) / sum(weights)
            else:
                mean_a, mean_h = sum(models[:, i]) / len(h), sum(h) / len(h)
                table[i, k] = (
                    mean_a - sum(a * b for a, b in zip(models[:, i], h, strict=True)) / len(h) + mean_a * mean_h
                )
    return table


def system(n_frames, seed, model_spread=0.02, potential_spread=0.05):
    rng = np.random.default_rng(seed)
    x = autoregressive(0.7, n_frames, 1, seed)
    energies = 0.5 * KT * (1 + potential_spread * rng.normal(size=5)) * x**2
    models = (1 + model_spread * rng.normal(size=3)) * x**2 + 0.01 * rng.normal(size=(n_frames, 3))
    return models, energies


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_table_and_variances_equal_those_of_brute_force(method):
    models, energies = system(500, seed=1)
    found = reweight_models(models, energies, TEMPERATURE, method)
    table = brute_force(models, energies, method)
    assert_allclose(found.table, table, rtol=1e-10)
    assert found.mean == pytest.approx(table.mean(), rel=1e-12)
    model, potential, both = committee_variances(table)
    assert both == pytest.approx(table.ravel().var(ddof=1), rel=1e-12)
    means = [sum(row) / 5 for row in table]
    assert model == pytest.approx(sum((m - sum(means) / 3) ** 2 for m in means) / 2, rel=1e-12)
    variances = [sum((a - m) ** 2 for a in row) / 4 for row, m in zip(table, means, strict=True)]
    assert potential == pytest.approx(sum(variances) / 3, rel=1e-12)


def test_errors_are_free_of_sampling_noise():
    """Models c_i x^2 under oscillators k_k: both spreads are known; short runs add as much noise again."""
    found = np.zeros((300, 3))
    exact = np.zeros(3)
    for repeat in range(300):
        rng = np.random.default_rng(1_000 + repeat)
        x, noise = rng.normal(size=400), rng.normal(size=(400, 3))
        constants, factors = 1 + np.array([-0.04, -0.02, 0.02, 0.04]), 1 + np.array([-0.03, 0.0, 0.03])
        models = factors * (x**2)[:, None] + 0.3 * noise
        average = reweight_models(models, 0.5 * KT * constants * (x**2)[:, None], TEMPERATURE)
        found[repeat] = average.model_error, average.potential_error, average.committee_error
        exact = np.sqrt(committee_variances(factors[:, None] * (2 - constants)))
    assert_allclose(np.sqrt(np.mean(found**2, axis=0)), exact, rtol=0.12)


def test_models_that_agree_are_the_average_of_one():
    models, energies = system(2_000, seed=3, model_spread=0.0)
    found = reweight_models(models, energies, TEMPERATURE)
    assert found.potential_error > 3 * found.model_error
    assert found.total_error == pytest.approx(np.hypot(found.committee_error, found.statistical_error))
    content = found.as_dict("Å^2")
    assert content["value"] == found.mean
    assert content["committee_error"] > 0


def test_one_column_is_refused():
    models, energies = system(100, seed=4)
    for arguments in ((models[:, :1], energies), (models[:, 0], energies), (models, energies[:, :1])):
        with pytest.raises(SeriesError, match="two columns or more"):
            reweight_models(*arguments, TEMPERATURE)
