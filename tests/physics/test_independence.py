"""No feature is a linear combination of the others, and none is missing."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
import reference
from invariants import count_invariants

from comitia.density import Descriptor
from comitia.density.couplings import independent_intermediates
from comitia.density.features import feature_list

CASES = {
    "one species": {"species": [14], "n_max": [4, 3, 2], "l_max": [0, 4, 3]},
    "one radial function, high l": {"species": [14], "n_max": [1, 1, 1], "l_max": [0, 8, 8]},
    "two species": {"species": [6, 14], "n_max": [3, 2, 2], "l_max": [0, 3, 2]},
    "three species": {"species": [1, 6, 8], "n_max": [2, 2, 1], "l_max": [0, 2, 3]},
    "total degree bounded": {"species": [14], "n_max": [6, 5, 4], "l_max": [0, 5, 4], "degree": [None, 7, 6]},
    "number of features bounded": {"species": [14], "max_features": 300},
    "default": {"species": [14], "max_features": 420},
    "order 4, one species": {"species": [14], "n_max": [3, 2, 2, 2], "l_max": [0, 3, 3, 3]},
    "order 4, one radial function, high l": {"species": [14], "n_max": [1, 1, 1, 1], "l_max": [0, 4, 4, 6]},
    "order 4, two species": {"species": [6, 14], "n_max": [3, 2, 2, 2], "l_max": [0, 3, 2, 2]},
    "order 4, number of features bounded": {"species": [14], "n_max": [8, 5, 4, 3], "l_max": [0, 5, 4, 4]},
}


def random_density(features, n_samples, seed):
    """Random A (n_samples, n_channels, (l_max + 1)^2): no relation among them but those of the features."""
    n_channels = features[:, [1, 3, 5, 7]].max() + 1
    l_max = max(features[:, [2, 4, 6, 8]].max(), 0)
    return np.random.default_rng(seed).normal(size=(n_samples, n_channels, (l_max + 1) ** 2))


@pytest.mark.parametrize("name", CASES)
def test_rank_on_random_density_is_the_number_of_features(name):
    options = CASES[name].copy()
    features = Descriptor.build(options.pop("species"), 5.0, **options).features
    values = reference.correlations(features, random_density(features, len(features) + 50, seed=1))
    values /= np.linalg.norm(values, axis=0)
    singular = np.linalg.svd(values, compute_uv=False)
    assert (singular > 1e-9 * singular[0]).sum() == len(features)
    assert singular[-1] > 1e-4 * singular[0]  # far from rounding: the rank is not in doubt


def independent_count(order, n_channels, n_radial, n_max, l_max):
    """Number of symmetrised couplings to an even scalar, by characters of the rotation group."""
    channels = [(k * n_radial + n, l) for l in range(l_max + 1) for k in range(n_channels) for n in range(n_max)]
    return sum(count_invariants(list(chosen)) for chosen in combinations_with_replacement(channels, order))


@pytest.mark.parametrize(
    ("n_channels", "n_max", "l_max"),
    [
        (1, [5, 4, 3], [0, 4, 3]),
        (2, [3, 2, 2], [0, 3, 2]),
        (1, [2, 2, 1, 1], [0, 6, 6, 8]),
        (1, [2, 2, 2, 2], [0, 3, 3, 3]),
        (2, [2, 2, 1, 2], [0, 2, 2, 1]),
    ],
)
def test_number_of_features_of_each_order_is_the_number_of_couplings(n_channels, n_max, l_max):
    features = feature_list(n_channels, max(n_max), n_max, l_max, [None] * len(n_max))
    for order in range(1, len(n_max) + 1):
        expected = independent_count(order, n_channels, max(n_max), n_max[order - 1], l_max[order - 1])
        assert (features[:, 0] == order).sum() == expected
    assert (features[:, 0] == 0).sum() == 1


@pytest.mark.parametrize("name", CASES)
def test_every_feature_is_a_coupling_of_its_own(name):
    options = CASES[name].copy()
    features = Descriptor.build(options.pop("species"), 5.0, **options).features
    seen = {}
    for row in features.tolist():
        channels = sorted((row[1 + 2 * f], row[2 + 2 * f]) for f in range(row[0]))
        assert row[1 + 2 * row[0] : 9] == [-1] * (8 - 2 * row[0])
        seen.setdefault(tuple(channels), []).append(row[9])
    for channels, through in seen.items():
        assert len(through) == len(set(through)) == count_invariants(list(channels))
        assert len(channels) == 4 or through == [-1]


@pytest.mark.parametrize("labels", [(0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 1, 1), (0, 0, 1, 1), (0, 0, 1, 2), (0, 1, 2, 3)])
def test_number_of_independent_intermediates(labels):
    """As many L as the group has invariants, for every four l up to 6 and every way in which channels are equal."""
    for ls in combinations_with_replacement(range(7), 4):
        if all(ls[i] == ls[j] or labels[i] != labels[j] for i in range(4) for j in range(4)):
            channels = list(zip(labels, ls, strict=True))
            assert len(independent_intermediates(ls, labels)) == count_invariants(channels)


def test_intermediates_of_either_parity_are_needed():
    """Four different channels with l = 1: a.b c.d, (a x b).(c x d) and a quadrupole product."""
    assert independent_intermediates((1, 1, 1, 1), (0, 1, 2, 3)) == (0, 1, 2)


def test_the_budget_is_kept():
    for n_species in (1, 2):
        descriptor = Descriptor.build(range(1, n_species + 1), 5.0)
        assert descriptor.n_features <= 700
        assert set(descriptor.orders) == {0, 1, 2, 3}
        assert (descriptor.smoothness >= 1).all()
        with_four = Descriptor.build(range(1, n_species + 1), 5.0, n_max=[12, 8, 5, 3])
        assert with_four.n_features <= 700
        assert set(with_four.orders) == {0, 1, 2, 3, 4}


def test_lists_of_three_leave_order_4_out():
    three = Descriptor.build([14], 5.0, n_max=[5, 3, 2], l_max=[0, 3, 2], degree=[None, None, None])
    four = Descriptor.build([14], 5.0, n_max=[5, 3, 2, 0], l_max=[0, 3, 2, 3], degree=[None] * 4)
    assert np.array_equal(three.features, four.features)
