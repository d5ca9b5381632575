"""Sums by group solve what a dense factorisation of all rows solves; the evidence is what brute force finds.

So are the errors on groups that are left out.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from comitia.training import normal_equations
from comitia.training.committee import fit_committee, refine
from comitia.training.evidence import Evidence, PriorShape, Regularisation
from comitia.training.normal_equations import KINDS, Factor, Moments, NormalEquations
from comitia.training.settings import Prior, Weights
from comitia.training.sharing import SHARED, Sharing
from comitia.training.systems import leave_out
from comitia.training.transfer import DIFFERENCES, RISES, STRONGER, Transfer

N_COLUMNS, N_GROUPS = 12, 8
SHAPE = PriorShape(np.repeat([0, 1, 2], [1, 4, 7]), np.linspace(-1, 1, N_COLUMNS))
FEATURE = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 3])  # of three species, one of which has two of the features
SHARED_SHAPE = PriorShape(
    np.array([0, 1, 1, 2, 2])[FEATURE],
    np.linspace(-1, 1, 5)[FEATURE],
    np.array([0.0, 0.0, 1.0, 0.0, 2.0])[FEATURE],
    Sharing(FEATURE, 3),
)


def made_up(seed=0, n_columns=N_COLUMNS, noise=0.1, condition=1.0, rows_of=None):
    """Normal equations, and the same rows as dense arrays {kind: (rows, target)} with the group of each row."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n_columns)
    spread = np.geomspace(1, 1 / condition, n_columns)
    mixing = np.linalg.qr(rng.normal(size=(n_columns, n_columns)))[0] * spread
    equations = NormalEquations(N_GROUPS, n_columns)
    dense = {kind: ([], [], []) for kind in KINDS}
    rows_of = rows_of or {"energy": 4, "forces": 60, "virial": 6}
    for group in range(N_GROUPS):
        for _ in range(3):
            for kind, n_rows in rows_of.items():
                rows = rng.normal(size=(n_rows, n_columns)) @ mixing.T
                target = rows @ truth + noise * rng.normal(size=n_rows)
                equations.add(group, kind, rows, target)
                for store, value in zip(dense[kind], (rows, target, np.full(n_rows, group)), strict=True):
                    store.append(value)
        equations.condense(group)
    return equations, {kind: [np.concatenate(x) for x in lists] for kind, lists in dense.items() if lists[0]}


def fixed(n_columns=N_COLUMNS, strength=1e-3, **weights):
    kinds = dict.fromkeys(KINDS, 1.0) | weights
    return Regularisation(np.full(n_columns, strength), kinds, strength, None, 1.0, {})


def dense_solution(dense, regularisation, chosen, weights=None):
    rho = {kind: regularisation.kind_weights[kind] * (weights or {}).get(kind, 1.0) for kind in dense}
    rows, target = [np.diag(np.sqrt(regularisation.penalty))], [np.zeros(len(regularisation.penalty))]
    for kind, (x, y, group) in dense.items():
        use = chosen[group]
        rows.append(np.sqrt(rho[kind]) * x[use])
        target.append(np.sqrt(rho[kind]) * y[use])
    return np.linalg.lstsq(np.vstack(rows), np.concatenate(target), rcond=None)[0]


def test_full_fit_and_members_equal_a_dense_solution():
    equations, dense = made_up()
    regularisation = fixed(energy=3.0, virial=0.2)
    everything, stratum = np.ones(N_GROUPS, bool), np.repeat([0, 1], N_GROUPS // 2)
    rng = np.random.default_rng(5)
    committee = fit_committee(equations, stratum, everything, 6, regularisation, Weights(), rng)
    full = dense_solution(dense, regularisation, everything)
    assert_allclose(committee.full, full, rtol=1e-10)
    assert_allclose(committee.members.mean(axis=0), full, rtol=1e-10)
    from comitia.training.groups import draw_members

    drawn = draw_members(stratum, 6, np.random.default_rng(5), everything)
    members = np.array([dense_solution(dense, regularisation, chosen) for chosen in drawn])
    assert_allclose(committee.members, members + full - members.mean(axis=0), rtol=1e-9)


def scatter_of_members(equations, regularisation):
    """The posterior draws of a committee: their fit, their covariance, and how many there are."""
    everything, stratum = np.ones(N_GROUPS, bool), np.zeros(N_GROUPS, int)
    n_members, rng = 40_000, np.random.default_rng(6)
    committee = fit_committee(equations, stratum, everything, n_members, regularisation, Weights(), rng, kind="llpr")
    assert_allclose(committee.members.mean(axis=0), committee.full, rtol=1e-9)
    return committee.full, np.cov(committee.members.T), n_members


def dense_precision(dense, regularisation, noise=None):
    """A of dense rows, or B where the noise (n_groups,) of each kind is given."""
    matrix = np.diag(regularisation.penalty) * (1.0 if noise is None else regularisation.noise**2)
    for kind, (rows, _, group) in dense.items():
        rho = regularisation.kind_weights[kind]
        scaled = rows if noise is None else rows * np.sqrt(rho * noise[kind][group])[:, None]
        matrix = matrix + rho * scaled.T @ scaled
    return matrix


@pytest.mark.parametrize("uneven", [False, True])
def test_members_of_the_posterior_scatter_as_the_noise_of_the_groups_asks(uneven):
    equations, dense = made_up(seed=2)
    if uneven:  # one group of noisy labels
        rng = np.random.default_rng(1)
        rows, target = rng.normal(size=(90, N_COLUMNS)), 3 * rng.normal(size=90)
        equations.add(5, "forces", rows, target)
        equations.condense(5)
        added = rows, target, np.full(90, 5)
        dense["forces"] = [np.concatenate(pair) for pair in zip(dense["forces"], added, strict=True)]
    regularisation = fixed(energy=3.0, virial=0.2)
    full, covariance, n_members = scatter_of_members(equations, regularisation)
    assert_allclose(full, dense_solution(dense, regularisation, np.ones(N_GROUPS, bool)), rtol=1e-10)
    noise = {
        kind: np.array([np.mean((target - rows @ full)[group == g] ** 2) for g in range(N_GROUPS)])
        for kind, (rows, target, group) in dense.items()
    }
    for kind, found in equations.noise(full).items():
        assert_allclose(found, noise[kind], rtol=1e-9)
    inverse = np.linalg.inv(dense_precision(dense, regularisation))
    expected = inverse @ dense_precision(dense, regularisation, noise) @ inverse
    # whitened by what is expected the members scatter as independent normal numbers
    white = np.linalg.inv(np.linalg.cholesky(expected))
    assert np.abs(white @ covariance @ white.T - np.eye(N_COLUMNS)).max() < 5 * np.sqrt(2 / n_members)


def test_members_of_the_posterior_are_repeatable_and_those_of_even_noise_are_its_draws():
    equations, dense = made_up(seed=2, noise=1.0, rows_of={"forces": 4000})
    regularisation = fixed()
    _, covariance, n_members = scatter_of_members(equations, regularisation)
    root = np.linalg.cholesky(dense_precision(dense, regularisation))
    tolerance = 5 * np.sqrt(2 / n_members) + 5 * np.sqrt(2 / 12_000)  # of the draws, and of the noise of a group
    assert np.abs(root.T @ covariance @ root - np.eye(N_COLUMNS)).max() < tolerance
    everything, stratum = np.ones(N_GROUPS, bool), np.zeros(N_GROUPS, int)
    again = fit_committee(
        equations, stratum, everything, 8, regularisation, Weights(), np.random.default_rng(6), kind="llpr"
    )
    same = fit_committee(
        equations, stratum, everything, 8, regularisation, Weights(), np.random.default_rng(6), kind="llpr"
    )
    assert np.array_equal(again.members, same.members)


def test_user_weights_multiply_the_weights_of_the_kinds():
    equations, dense = made_up(seed=1)
    regularisation = fixed(energy=2.0)
    everything = np.ones(N_GROUPS, bool)
    rng, weights = np.random.default_rng(0), Weights(energy=5.0, forces=0.5, virial=0.0)
    committee = fit_committee(equations, np.zeros(N_GROUPS, int), everything, 1, regularisation, weights, rng)
    expected = dense_solution(dense, regularisation, everything, {"energy": 5.0, "forces": 0.5, "virial": 0.0})
    assert_allclose(committee.full, expected, rtol=1e-10)


def test_condensing_many_rows_keeps_their_moments():
    equations, dense = made_up(rows_of={"energy": 40, "forces": 5, "virial": 3})
    assert all(group["energy"].n_waiting <= N_COLUMNS // 2 for group in equations.groups)
    moments = equations.moments(np.ones(N_GROUPS, bool))["energy"]
    rows, target, _ = dense["energy"]
    assert_allclose(moments.gram, np.tril(rows.T @ rows), rtol=1e-11, atol=1e-9)
    assert_allclose(moments.rhs, rows.T @ target, rtol=1e-11, atol=1e-9)
    assert_allclose(moments.square, target @ target, rtol=1e-12)
    assert moments.count == len(target)


def test_refinement_returns_the_digits_that_normal_equations_lose():
    equations, dense = made_up(condition=1e6, noise=1e-3)
    regularisation = fixed(strength=1e-14)
    everything = np.ones(N_GROUPS, bool)
    rng = np.random.default_rng(0)
    committee = fit_committee(equations, np.zeros(N_GROUPS, int), everything, 1, regularisation, Weights(), rng)
    exact = dense_solution(dense, regularisation, everything)
    gradient = sum(rows.T @ (target - rows @ committee.full) for rows, target, _ in dense.values())
    refined, step = refine(committee, gradient)
    before, after = (np.linalg.norm(w - exact) / np.linalg.norm(exact) for w in (committee.full, refined.full))
    assert after < 1e-3 * before
    assert 0.5 * before < step < 2 * before


def precision_of(penalty, shape):
    """(n, n) Λ from its definition."""
    root = np.sqrt(np.diag(penalty))
    if shape.sharing is None:
        return root @ root
    return root @ (np.eye(len(penalty)) - SHARED / 3 * (FEATURE[:, None] == FEATURE)) @ root


def cholesky(matrix):
    """Lower factor in extended precision: the covariance of all rows has a condition of 5e9."""
    lower = np.array(matrix, np.longdouble)
    for j in range(len(lower)):
        lower[j:, j] /= np.sqrt(lower[j, j])
        lower[j + 1 :, j + 1 :] -= np.outer(lower[j + 1 :, j], lower[j + 1 :, j])
    return np.tril(lower)


def forward(lower, right):
    """The inverse of a lower triangle times the columns of a matrix."""
    found = np.array(right, np.longdouble)
    for j in range(len(lower)):
        found[j] /= lower[j, j]
        found[j + 1 :] -= np.outer(lower[j + 1 :, j], found[j])
    return found


def brute_force_evidence(dense, kind_weights, precision):
    """ln of the Gaussian density of all rows, weights and noise scale from their definitions."""
    rows = np.vstack([x for x, _, _ in dense.values()])
    target = np.concatenate([y for _, y, _ in dense.values()])
    variance = np.concatenate([np.full(len(y), 1 / kind_weights[kind]) for kind, (_, y, _) in dense.items()])
    of_prior = forward(cholesky(precision), rows.T)
    lower = cholesky(np.diag(variance) + of_prior.T @ of_prior)
    quadratic = (forward(lower, target[:, None]) ** 2).sum()
    return -0.5 * (len(target) * np.log(quadratic / len(target)) + 2 * np.log(np.diag(lower)).sum())


@pytest.mark.parametrize("shape", [SHAPE, SHARED_SHAPE], ids=["free", "shared"])
@pytest.mark.parametrize("parameters", [(0.3, 0.0, -0.4, 0.2, 0.1), (-1.0, 2.0, 1.0, -0.5, -0.1)])
def test_evidence_is_the_marginal_likelihood(parameters, shape):
    equations, dense = made_up(rows_of={"energy": 3, "forces": 8, "virial": 2})
    evidence = Evidence(equations.moments(np.ones(N_GROUPS, bool)), shape)
    at = evidence.start(1e-2) + np.array(parameters)
    kind_weights, log_penalty = evidence.unpack(at)
    expected = brute_force_evidence(dense, kind_weights, precision_of(np.exp(log_penalty), shape))
    assert_allclose(evidence(at)[0], float(expected), rtol=1e-9)


@pytest.mark.parametrize("shape", [SHAPE, SHARED_SHAPE], ids=["free", "shared"])
def test_gradient_of_the_evidence(shape):
    equations, _ = made_up()
    evidence = Evidence(equations.moments(np.ones(N_GROUPS, bool)), shape)
    at = evidence.start(1e-3) + np.array([0.2, 0.5, -0.5, 0.1, 0.2])
    step = 1e-4
    numerical = [
        (evidence(at + step * unit)[0] - evidence(at - step * unit)[0]) / (2 * step) for unit in np.eye(len(at))
    ]
    assert_allclose(evidence(at)[1], numerical, rtol=1e-5, atol=1e-4)


def test_the_precision_of_shared_weights():
    penalty = np.geomspace(0.1, 10, N_COLUMNS)
    expected, sharing = precision_of(penalty, SHARED_SHAPE), SHARED_SHAPE.sharing
    matrix, weights = np.zeros((N_COLUMNS, N_COLUMNS)), np.random.default_rng(0).normal(size=N_COLUMNS)
    sharing.add_to(matrix, penalty)
    assert_allclose(matrix, np.tril(expected), atol=1e-14)
    assert_allclose(sharing.times(penalty, weights), expected @ weights, atol=1e-13)
    log_determinant = np.linalg.slogdet(expected)[1] - np.log(penalty).sum()
    assert_allclose(sharing.log_determinant, log_determinant, rtol=1e-12)
    # a common shift of the weights of one feature costs 1 - s times what its length would, a difference all of it
    for step, cost in (([1, 1, 1], 3 * (1 - SHARED)), ([1, -1, 0], 2)):
        shift = np.zeros(N_COLUMNS)
        shift[FEATURE == 0] = step
        assert_allclose(shift @ precision_of(np.ones(N_COLUMNS), SHARED_SHAPE) @ shift, cost)


def test_an_element_with_one_row_stays_near_the_others():
    """Two species with many rows share their weights; the third has one row, and is predicted as they are."""
    rng = np.random.default_rng(4)
    n_features, n_species = 20, 3
    n_columns, truth = n_features * n_species, np.tile(rng.normal(size=n_features), n_species)
    truth += 0.02 * rng.normal(size=n_columns)
    equations = NormalEquations(1, n_columns)
    for species, n_rows in ((0, 200), (1, 200), (2, 1)):
        rows, columns = np.zeros((n_rows, n_columns)), slice(species * n_features, (species + 1) * n_features)
        rows[:, columns] = rng.normal(size=(n_rows, n_features))
        equations.add(0, "forces", rows, rows @ truth + 0.1 * rng.normal(size=n_rows))
    order, none = np.ones(n_columns, int), np.zeros(n_columns)
    error = {}
    for name, sharing in (("shared", Sharing(np.tile(np.arange(n_features), n_species), n_species)), ("own", None)):
        found = Evidence(equations.moments(np.ones(1, bool)), PriorShape(order, none, None, sharing)).maximise()
        committee = fit_committee(equations, np.zeros(1, int), np.ones(1, bool), 1, found, Weights(), rng)
        rare = committee.full[2 * n_features :]
        error[name] = np.linalg.norm(rare - truth[2 * n_features :]) / np.linalg.norm(truth[2 * n_features :])
    assert error["own"] > 0.8
    assert error["shared"] < 0.5


def test_maximum_of_the_evidence_is_where_a_scan_finds_it():
    equations, _ = made_up(noise=2.0)
    evidence = Evidence(equations.moments(np.ones(N_GROUPS, bool)), SHAPE)
    found = evidence.maximise(tolerance=1e-3)
    rng = np.random.default_rng(0)
    low, high = np.array(evidence.bounds()).T
    scanned = max(evidence(rng.uniform(low, high), gradient=False)[0] for _ in range(4000))
    assert found.log_evidence > scanned
    assert found.log_evidence - scanned < 10


def test_evidence_finds_how_noisy_virials_are():
    rng = np.random.default_rng(2)
    noise = {"energy": 0.5, "forces": 0.5, "virial": 0.1}
    equations = NormalEquations(1, N_COLUMNS)
    truth = rng.normal(size=N_COLUMNS)
    for kind, sigma in noise.items():
        rows = rng.normal(size=(800, N_COLUMNS))
        equations.add(0, kind, rows, rows @ truth + sigma * rng.normal(size=800))
    equations.condense(0)
    found = Evidence(equations.moments(np.ones(1, bool)), SHAPE).maximise(tolerance=1e-4)
    expected = np.log((noise["forces"] / noise["virial"]) ** 2)
    # standard error of ln of a variance ratio: sqrt(2 / 1600 + 2 / 800)
    assert abs(np.log(found.kind_weights["virial"]) - expected) < 4 * np.sqrt(2 / 1600 + 2 / 800)
    assert found.kind_weights["energy"] == 1.0
    assert abs(found.noise / noise["forces"] - 1) < 4 / np.sqrt(2 * 1600)


def test_a_singular_problem_still_has_a_solution():
    matrix = np.ones((4, 4))
    weights = Factor(matrix.copy()).solve(np.ones(4))
    assert_allclose(matrix @ weights, np.ones(4), rtol=1e-5)


def test_kinds_are_combined_with_their_weights():
    equations, dense = made_up()
    combined = equations.combined(np.ones(N_GROUPS, bool), {"forces": 2.0, "energy": 0.0, "virial": 0.5})
    expected = sum(factor * dense[kind][0].T @ dense[kind][0] for kind, factor in (("forces", 2.0), ("virial", 0.5)))
    assert_allclose(combined.gram, np.tril(expected), rtol=1e-11, atol=1e-9)
    expected = sum(factor * dense[kind][0].T @ dense[kind][1] for kind, factor in (("forces", 2.0), ("virial", 0.5)))
    assert_allclose(combined.rhs, expected, rtol=1e-11, atol=1e-9)
    assert combined.count == len(dense["forces"][1]) + len(dense["virial"][1])
    weights, two = np.linspace(-1, 2, N_COLUMNS), np.arange(N_GROUPS) < 2
    for kind, (rows, target, group) in dense.items():
        squares = np.sum((target - rows @ weights)[group < 2] ** 2)
        assert_allclose(equations.residual_square(two, kind, weights), squares, rtol=1e-11)


@pytest.mark.parametrize("panel", [1, 5, 1000])
def test_products_in_panels_of_columns(monkeypatch, panel):
    monkeypatch.setattr(normal_equations, "PANEL", panel)
    equations, dense = made_up(rows_of={"energy": 40, "forces": 25, "virial": 3})
    moments = equations.moments(np.ones(N_GROUPS, bool))
    for kind, (rows, target, _) in dense.items():
        assert_allclose(moments[kind].gram, np.tril(rows.T @ rows), rtol=1e-11, atol=1e-9)
        assert_allclose(moments[kind].rhs, rows.T @ target, rtol=1e-11, atol=1e-9)


def test_inverse_and_residuals_from_the_lower_triangle():
    rng = np.random.default_rng(3)
    rows, target = rng.normal(size=(20, 6)), rng.normal(size=20)
    matrix = rows.T @ rows
    inverse, factor = np.linalg.inv(matrix), Factor(np.tril(matrix))
    assert_allclose(factor.inverse(), np.tril(inverse), rtol=1e-10, atol=1e-14)
    assert_allclose(factor.inverse_diagonal(), np.diag(inverse), rtol=1e-10)
    assert_allclose(factor.log_determinant, np.linalg.slogdet(matrix)[1])
    weights, moments = rng.normal(size=6), Moments(np.tril(matrix), rows.T @ target, float(target @ target), 20)
    assert_allclose(moments.residual_square(weights), np.sum((target - rows @ weights) ** 2), rtol=1e-10)


SYSTEMS = [["A"], ["B"], ["A-B"], ["A-B"], ["A-C"], ["B-C"], ["B-C"], ["C"]]


def transfer_of(equations, shape, **weights):
    evidence = Evidence(equations.moments(np.ones(N_GROUPS, bool)), shape)
    parts = leave_out(SYSTEMS, np.ones(N_GROUPS, bool), np.ones(N_GROUPS))
    return Transfer(evidence, equations, parts, evidence.maximise(), Weights(**weights))


@pytest.mark.parametrize("shape", [SHAPE, SHARED_SHAPE], ids=["free", "shared"])
def test_loss_of_systems_left_out_is_that_of_fits_to_the_rest(shape):
    equations, dense = made_up(noise=1.0)
    transfer = transfer_of(equations, shape, virial=0.3)
    noise, place = transfer.found.noise, (2, 1)
    kind_weights, log_penalty = transfer.evidence.unpack(*transfer.parameters(place))
    root = np.linalg.cholesky(precision_of(np.exp(log_penalty), shape)).T
    expected, total = dict.fromkeys(("energy", "forces"), 0.0), {kind: len(y) for kind, (_, y, _) in dense.items()}
    for system in {system for (system,) in SYSTEMS}:
        left = np.array([[system] == of_group for of_group in SYSTEMS])
        rows, target = [root], [np.zeros(N_COLUMNS)]
        for kind, (x, y, group) in dense.items():
            scale = np.sqrt(kind_weights[kind] * (0.3 if kind == "virial" else 1.0))
            rows.append(scale * x[~left[group]])
            target.append(scale * y[~left[group]])
        weights = np.linalg.lstsq(np.vstack(rows), np.concatenate(target), rcond=None)[0]
        for kind in expected:
            x, y, group = dense[kind]
            error = (y - x @ weights)[left[group]]
            expected[kind] += 0.5 * len(error) / total[kind] * np.log(noise**2 + np.mean(error**2))
    assert len(transfer.parts) == 6
    assert_allclose(transfer.loss(place), sum(expected.values()), rtol=1e-9)


def test_the_prior_is_the_best_of_what_was_tried_and_of_its_neighbours():
    equations, _ = made_up(noise=3.0)
    transfer = transfer_of(equations, SHARED_SHAPE)
    found = transfer.minimise()
    losses = {place: loss for place, (loss, _) in transfer.tried.items()}
    assert found.place == min(losses, key=losses.get)
    for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        near = found.place[0] + i, found.place[1] + j
        assert near in losses or not (0 <= near[0] < len(STRONGER) and 0 <= near[1] < len(DIFFERENCES))
    assert len(losses) < 3 * RISES + len(STRONGER) + 4
    again = transfer_of(equations, SHARED_SHAPE)
    assert again.minimise(start=found.place).place == found.place
    assert len(again.tried) <= 5
    candidates = found.left_out["candidates"]
    assert min(candidates, key=lambda one: one["loss"])["stronger"] == STRONGER[found.place[0]]
    given = Evidence(equations.moments(np.ones(N_GROUPS, bool)), SHARED_SHAPE).given(Prior(**found.parameters))
    assert_allclose(given.penalty, found.penalty, rtol=1e-10)  # what the report has can be given to another fit
