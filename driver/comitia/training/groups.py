"""Groups of frames that are held out, or drawn for a member, together.

Neighbouring frames of a trajectory are copies of each other, so frames are never drawn one by one: the frames of a
`config_type` are cut into short *blocks* of neighbours (or follow a given key), and whole blocks are dealt at random
into a few *groups*. A group never spans two strata (`config_type`). The sums of a least-squares problem are kept once
per group, which bounds the memory: at most about `MAX_GROUPS` matrices of n_columns x n_columns, whatever the data.
"""

import collections
import itertools

import numpy as np

MAX_GROUPS = 32
LONGEST_BLOCK = 5


def make_blocks(strata, keys=None, block=None):
    """Index of the block of every frame.

    Parameters
    ----------
    strata : (n_frames,) sequence of str, the `config_type` of each frame
    keys : (n_frames,) sequence or None; frames with the same key form one block
    block : int or None, frames in a block; by default an eighth of the frames of a stratum, at most 5

    Returns
    -------
    (n_frames,) int array
    """
    if keys is not None:
        names = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        return np.array([names[key] for key in keys])
    blocks, used = np.empty(len(strata), dtype=int), 0
    for stratum in dict.fromkeys(strata):
        frames = np.flatnonzero([s == stratum for s in strata])
        length = block or min(LONGEST_BLOCK, max(1, len(frames) // 8))
        blocks[frames] = used + np.arange(len(frames)) // length
        used = blocks[frames].max() + 1
    return blocks


def _stratum_of_blocks(strata, blocks):
    """Most frequent `config_type` of each block; those with a single block share one stratum."""
    counts = collections.defaultdict(collections.Counter)
    for stratum, block in zip(strata, blocks, strict=True):
        counts[int(block)][stratum] += 1
    of_block = {block: counter.most_common(1)[0][0] for block, counter in counts.items()}
    n_blocks = collections.Counter(of_block.values())
    alone = [stratum for stratum, number in n_blocks.items() if number == 1]
    if len(alone) > 1:
        of_block = {block: "" if stratum in alone else stratum for block, stratum in of_block.items()}
    return of_block


def make_groups(strata, blocks, rng, max_groups=MAX_GROUPS):
    """Deal blocks at random into groups, each within one stratum.

    Returns
    -------
    group : (n_frames,) int array
    group_stratum : (n_groups,) int array, the stratum of each group
    """
    of_block = _stratum_of_blocks(strata, blocks)
    by_stratum = collections.defaultdict(list)
    for block in sorted(of_block):
        by_stratum[of_block[block]].append(block)
    total = len(of_block)
    fewest = 4 if 4 * len(by_stratum) <= max_groups else 2
    of_group, group_stratum, used = {}, [], 0
    for index, members in enumerate(by_stratum.values()):
        share = max_groups if total <= max_groups else int(max_groups * len(members) / total)
        n_groups = min(len(members), max(fewest, share))
        for position, block in enumerate(rng.permutation(members)):
            of_group[int(block)] = used + position % n_groups
        group_stratum += [index] * n_groups
        used += n_groups
    return np.array([of_group[int(block)] for block in blocks]), np.array(group_stratum)


def extend_groups(names, strata, blocks, rng, most_added=4):
    """Deal the blocks of new frames at random into the groups of their stratum; a new stratum gets groups of its own.

    Parameters
    ----------
    names : list of str, the stratum of each group that there is
    strata, blocks : of the new frames
    most_added : int, groups of a new stratum

    Returns
    -------
    group : (n_frames,) int array
    names : list of str, the stratum of each group
    """
    by_stratum, names, of_group = collections.defaultdict(list), list(names), {}
    for block in dict.fromkeys(int(block) for block in blocks):
        types = collections.Counter(strata[i] for i in np.flatnonzero(blocks == block))
        by_stratum[types.most_common(1)[0][0]].append(block)
    for stratum, members in by_stratum.items():
        there = [group for group, name in enumerate(names) if name == stratum]
        if not there:
            there = list(range(len(names), len(names) + min(len(members), most_added)))
            names += [stratum] * len(there)
        for block, group in zip(rng.permutation(members), itertools.cycle(rng.permutation(there))):
            of_group[int(block)] = int(group)
    return np.array([of_group[int(block)] for block in blocks]), names


def deal_folds(group_stratum, n_folds, rng):
    """Fold in which each group is held out, as evenly as possible in every stratum; −1 for never.

    The only group of its stratum is never held out: without it the rest could not know about it.
    """
    folds, start = np.full(len(group_stratum), -1), 0
    for stratum in np.unique(group_stratum):
        groups = rng.permutation(np.flatnonzero(group_stratum == stratum))
        if len(groups) > 1:
            folds[groups] = (start + np.arange(len(groups))) % n_folds
            start += len(groups)
    return folds


def draw_members(group_stratum, n_members, rng, allowed=None):
    """Groups on which each member is trained: half of every stratum, without replacement.

    Parameters
    ----------
    group_stratum : (n_groups,) int array
    n_members : int
    rng : numpy.random.Generator
    allowed : (n_groups,) bool array or None; groups that may be drawn

    Returns
    -------
    (n_members, n_groups) bool array; every stratum with an allowed group is in every member.
    """
    allowed = np.ones(len(group_stratum), dtype=bool) if allowed is None else allowed
    drawn = np.zeros((n_members, len(group_stratum)), dtype=bool)
    for stratum in np.unique(group_stratum[allowed]):
        groups = np.flatnonzero((group_stratum == stratum) & allowed)
        for member in range(n_members):
            half = max(1, (len(groups) + int(rng.integers(2))) // 2)
            drawn[member, rng.choice(groups, half, replace=False)] = True
    return drawn


def draw_blocks(strata, blocks, fraction, rng):
    """Frames of a random `fraction` of the blocks of every stratum that has more than one.

    Returns
    -------
    (n_frames,) bool array
    """
    of_block = _stratum_of_blocks(strata, blocks)
    held = set()
    for stratum in dict.fromkeys(of_block.values()):
        members = [block for block, name in of_block.items() if name == stratum]
        if len(members) > 1:
            number = min(len(members) - 1, max(1, round(fraction * len(members))))
            held.update(int(block) for block in rng.choice(members, number, replace=False))
    return np.array([int(block) in held for block in blocks])
