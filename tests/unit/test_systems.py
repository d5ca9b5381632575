"""Chemical systems: kept apart in the groups of a fit, and left out where the rest knows their species."""

import numpy as np
import pytest

from comitia.training.groups import MAX_GROUPS, make_blocks, make_groups
from comitia.training.systems import (
    FEWEST_PARTS,
    MOST_PARTS,
    cut_blocks,
    deal_parts,
    leave_out,
    parts_of_groups,
    strata_like,
    strata_of,
    systems_of_groups,
)

ALLOYS = ["Mo"] * 30 + ["Nb"] * 25 + ["Mo-Nb"] * 60 + ["Ta"] * 8 + ["Mo-Ta"] * 21 + ["Nb-Ta"] * 16


def grouped(systems, config_types=None, max_groups=MAX_GROUPS, seed=0):
    """Group of each structure, and the chemical systems in each group, as a fit deals them."""
    rng, config_types = np.random.default_rng(seed), config_types or ["default"] * len(systems)
    strata = strata_of(config_types, systems, max_groups, rng)
    blocks = cut_blocks(make_blocks(config_types), systems)
    group, _ = make_groups(strata, blocks, rng, max_groups)
    return group, systems_of_groups(systems, group), strata


@pytest.mark.parametrize("n_systems", [3, 10, 11, 40])
def test_structures_of_one_system_are_in_one_part(n_systems):
    rng = np.random.default_rng(n_systems)
    systems = [f"X{i}" for i in rng.integers(n_systems, size=400)]
    part = deal_parts(systems, MOST_PARTS, rng)
    assert len(set(part)) == min(n_systems, MOST_PARTS)
    for system in set(systems):
        assert len(set(part[np.array(systems) == system])) == 1
    if n_systems > MOST_PARTS:
        size = np.bincount(part)
        assert size.max() - size.min() <= max(systems.count(system) for system in set(systems))


@pytest.mark.parametrize("seed", range(3))
def test_each_group_is_of_one_part(seed):
    group, known, strata = grouped(ALLOYS, seed=seed)
    assert all(len(of_group) == 1 for of_group in known)
    assert len(set(strata)) == len(set(ALLOYS)) == len(set(parts_of_groups(known)))
    assert len(known) <= MAX_GROUPS
    for index, system in zip(group, ALLOYS, strict=True):
        assert known[index] == [system]


def test_many_systems_are_left_out_together_and_only_once():
    rng = np.random.default_rng(1)
    systems = ["-".join(sorted(rng.choice(list("ABCDEFGHIJ"), 3, replace=False))) for _ in range(100)]
    group, known, _ = grouped(systems)
    parts = leave_out(known, np.ones(len(known), bool), np.bincount(group))
    assert FEWEST_PARTS <= len(parts) <= MOST_PARTS
    seen = [system for one in parts for system in one.systems]
    assert sorted(seen) == sorted(set(systems))
    for one in parts:
        assert not (one.part & one.rest).any()
        assert not {s for g in np.flatnonzero(one.rest) for s in known[g]} & set(one.systems)


@pytest.mark.parametrize(
    ("systems", "config_types", "max_groups"),
    [
        (["Mo"] * 50 + ["Mo-Nb"] * 50, None, 32),  # two systems
        (["Mo", "Nb", "Mo-Nb"] * 4, None, 32),  # too few structures
        (ALLOYS, [f"kind {i % 8}" for i in range(len(ALLOYS))], 32),  # no room beside so many config_types
    ],
)
def test_where_there_is_too_little_nothing_is_kept_apart(systems, config_types, max_groups):
    config_types = config_types or ["default"] * len(systems)
    assert strata_of(config_types, systems, max_groups, np.random.default_rng(0)) is None


def test_a_part_with_a_species_of_its_own_or_most_of_the_data_is_not_left_out():
    known = [["Mo"], ["Nb"], ["Mo-Nb"], ["Ta-W"], ["Mo-Nb"], ["Mo-Ta"]]
    everything, counts = np.ones(len(known), bool), np.ones(len(known))
    names = [one.systems for one in leave_out(known, everything, counts)]
    assert names == [["Mo"], ["Nb"], ["Mo-Nb"], ["Mo-Ta"]]  # nothing else knows W
    counts[0] = 10
    assert [one.systems for one in leave_out(known, everything, counts)] == names[1:]
    without = everything.copy()
    without[[2, 4]] = False
    assert leave_out(known, without, np.ones(len(known))) == []  # Nb is in one system alone then, and Ta in two


def test_groups_that_share_a_system_are_left_out_together():
    assert parts_of_groups([["A"], ["B", "A-B"], ["C"], ["A-B", "C"], ["A"]]).tolist() == [0, 1, 1, 1, 0]


def test_new_structures_join_the_groups_of_their_system():
    group, known, strata = grouped(ALLOYS)
    names = [strata[np.argmax(group == index)] for index in range(len(known))]
    like = strata_like(["default", "default", "hot"], ["Mo-Nb", "Ta-W", "Mo-Nb"], names, known)
    assert like[0] == names[known.index(["Mo-Nb"])]
    assert len({*like, *names}) == len(set(names)) + 2
    extended = systems_of_groups(["Ta-W"], [len(known)], known)
    assert extended == [*known, ["Ta-W"]]
