"""Groups: neighbouring frames stay together, every config_type is in every member, every draw is reproducible."""

import collections

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comitia.training.groups import MAX_GROUPS, deal_folds, draw_blocks, draw_members, make_blocks, make_groups

STRATA = ["vacancy"] * 57 + ["surface"] * 12 + ["molten"] * 90 + ["elastic"] * 55 + ["atom"]


def grouped(strata, seed=3, keys=None):
    blocks = make_blocks(strata, keys)
    group, stratum = make_groups(strata, blocks, np.random.default_rng(seed))
    return blocks, group, stratum


def test_blocks_are_contiguous_within_a_config_type():
    strata = ["a", "b"] * 40
    blocks = make_blocks(strata)
    for block in np.unique(blocks):
        frames = np.flatnonzero(blocks == block)
        assert len({strata[i] for i in frames}) == 1
        assert len(frames) <= 5
        assert np.ptp(frames) == 2 * (len(frames) - 1)  # neighbours within their own config_type


def test_frames_with_one_key_stay_together():
    keys = [f"trajectory {i % 7}" for i in range(70)]
    _, group, _ = grouped(["a"] * 70, keys=keys)
    for key in set(keys):
        assert len({group[i] for i in range(70) if keys[i] == key}) == 1


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=200), st.integers(0, 5))
def test_groups_bound_memory_and_keep_blocks_whole(strata, seed):
    blocks, group, stratum = grouped(strata, seed)
    assert len(stratum) <= MAX_GROUPS + 2 * len(set(strata))
    assert set(group) == set(range(len(stratum)))
    for block in np.unique(blocks):
        assert len(set(group[blocks == block])) == 1


@pytest.mark.parametrize("seed", range(5))
def test_no_member_loses_a_config_type_and_each_holds_half(seed):
    _, group, stratum = grouped(STRATA, seed)
    drawn = draw_members(stratum, 16, np.random.default_rng(seed))
    for member in drawn:
        frames = np.flatnonzero(member[group])
        assert {STRATA[i] for i in frames} == set(STRATA)
        assert 0.35 < len(frames) / len(STRATA) < 0.65
    assert len({tuple(member) for member in drawn}) == 16


def test_members_of_a_fold_see_nothing_of_it():
    _, _, stratum = grouped(STRATA)
    folds = deal_folds(stratum, 5, np.random.default_rng(0))
    for fold in range(5):
        drawn = draw_members(stratum, 8, np.random.default_rng(1), allowed=folds != fold)
        assert not drawn[:, folds == fold].any()


def test_every_frame_is_held_out_once_except_a_lone_config_type():
    _, group, stratum = grouped(STRATA)
    folds = deal_folds(stratum, 5, np.random.default_rng(0))[group]
    assert set(np.flatnonzero(folds < 0)) == {STRATA.index("atom")}
    for fold in range(5):
        held = collections.Counter(s for s, f in zip(STRATA, folds, strict=True) if f == fold)
        assert 0.1 < held.total() / len(STRATA) < 0.3
    for kind in set(STRATA) - {"atom"}:
        assert len({f for s, f in zip(STRATA, folds, strict=True) if s == kind}) >= 4


def test_a_fraction_is_held_out_of_every_config_type():
    blocks = make_blocks(STRATA)
    held = draw_blocks(STRATA, blocks, 0.1, np.random.default_rng(0))
    for kind in set(STRATA) - {"atom"}:
        frames = np.array([s == kind for s in STRATA])
        assert 0 < held[frames].mean() < 0.25
    assert not held[STRATA.index("atom")]
    for block in np.unique(blocks):
        assert len(set(held[blocks == block])) == 1


def test_the_seed_decides():
    first, again, other = (grouped(STRATA, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
