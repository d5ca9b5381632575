"""The feature list, arranged for the forces of all members at once (ext/core/members.h)."""

import numpy as np

from comitia.density.couplings import real_coupling


def _rows(lists, *kinds):
    """CSR: starts, then the columns of the tuples in `lists`, one array of each kind."""
    entries = [entry for entries in lists for entry in entries]
    columns = zip(*entries, strict=True) if entries else [()] * len(kinds)
    start = np.cumsum([0] + [len(entries) for entries in lists]).astype(np.int32)
    return start, *(np.asarray(column, kind) for column, kind in zip(columns, kinds, strict=True))


class _Blocks:
    """Blocks of 2 l + 1 terms, channels and products of two of them, and what each is multiplied with."""

    def __init__(self, base):
        self.base = list(base.values())
        self.partners = [[] for _ in base]
        self.index = {channel: b for b, channel in enumerate(base)}
        self.n_terms = sum(2 * l + 1 for _, l in base)
        self.products, self.couplings = [], {}

    def product(self, first, second, l):
        """Block of the product of two channels coupled to l."""
        key = (first, second, l)
        if key not in self.index:
            table = self.couplings.setdefault((first[1], second[1], l), len(self.couplings))
            self.products.append((self.base[self.index[first]], self.base[self.index[second]], table))
            self.index[key] = len(self.base)
            self.base.append(self.n_terms)
            self.partners.append([])
            self.n_terms += 2 * l + 1
        return self.index[key]

    def multiply(self, one, other, feature):
        """The scalar product of two blocks is a feature."""
        self.partners[one].append((self.base[other], feature))
        self.partners[other].append((self.base[one], feature))


def _slots(component_lm, component_function, component_channel, contraction, n_lm):
    """Which radial functions the neighbours of each species meet at each harmonic, and the components behind them."""
    start, function, sources = [], [], []
    for u in contraction.T:
        start.append(len(function))
        of_slot = {}
        for c in np.flatnonzero(u[component_channel]):
            slot = (int(component_lm[c]), int(component_function[c]))
            of_slot.setdefault(slot, []).append((int(c), float(u[component_channel[c]])))
        slots = sorted(of_slot)
        counts = np.bincount([lm for lm, _ in slots], minlength=n_lm)
        start += (start[-1] + np.cumsum(counts)).tolist()
        function += [f for _, f in slots]
        sources += [of_slot[slot] for slot in slots]
    return np.array(start, np.int32), np.array(function, np.int32), sources


def arrange_members(features, program, contraction, l_max):
    """Arrays of the C `member_program`, and the scale of each feature.

    Parameters
    ----------
    features : (n_features, 10) int array, see `feature_list`
    program : dict, as `comitia.density.program.arrange` makes it; its components are used
    contraction : (n_channels, n_species) array
    l_max : int

    Returns
    -------
    dict of arrays and ints; `scale` (n_features,) by which the weights are to be multiplied
    """
    channels = sorted({(int(row[c + 1]), int(row[c])) for row in features for c in (1, 3, 5, 7) if row[c] >= 0})
    ends = np.cumsum([2 * l + 1 for l, _ in channels])
    blocks = _Blocks({(q, l): int(end) - 2 * l - 1 for (l, q), end in zip(channels, ends, strict=True)})
    scale, order1 = np.ones(len(features)), []
    for f, row in enumerate(features.tolist()):
        order = row[0]
        factors = [(row[c], row[c + 1]) for c in range(1, 2 * order, 2)]
        if order == 1:
            order1.append((blocks.index[factors[0]], f))
        elif order == 2:
            blocks.multiply(blocks.index[factors[0]], blocks.index[factors[1]], f)
            scale[f] = 1 / np.sqrt(2 * factors[0][1] + 1)
        elif order == 3:
            blocks.multiply(blocks.product(*factors[:2], factors[2][1]), blocks.index[factors[2]], f)
        elif order == 4:
            blocks.multiply(blocks.product(*factors[:2], row[9]), blocks.product(*factors[2:], row[9]), f)
            scale[f] = np.sqrt(2 * row[9] + 1)
    for block, f in order1:  # the term behind all others is 1
        blocks.partners[block].append((blocks.n_terms, f))

    tables = [real_coupling(*ls) for ls in blocks.couplings]
    entries = [[(*index, table[tuple(index)]) for index in np.argwhere(table).tolist()] for table in tables]
    arrays = {}
    for name, axis, others in (("first", 0, (1, 2)), ("second", 1, (0, 2))):
        lists = [
            [(e[others[0]], e[others[1]], e[3]) for e in of_table if e[axis] == m]
            for of_table, table in zip(entries, tables, strict=True)
            for m in range(table.shape[axis])
        ]
        columns = _rows(lists, np.int32, np.int32, float)
        arrays |= dict(zip((f"{name}_start", f"{name}_factor", f"{name}_out", f"{name}_value"), columns, strict=True))
        sizes = [table.shape[axis] for table in tables]
        arrays[f"{name}_row"] = np.cumsum([0, *sizes]).astype(np.int32)
    n_lm = (l_max + 1) ** 2
    lm, function, channel = (program[f"component_{name}"] for name in ("lm", "function", "channel"))
    slot_start, slot_function, sources = _slots(lm, function, channel, np.asarray(contraction), n_lm)
    dot_start, dot_other, dot_feature = _rows(blocks.partners, np.int32, np.int32)
    source_start, source_component, source_factor = _rows(sources, np.int32, float)
    first, second, coupling = np.array(blocks.products, np.int32).reshape(-1, 3).T
    return arrays | {
        "scale": scale,
        "n_channels": len(channels),
        "n_terms": blocks.n_terms,
        "block_base": np.array([*blocks.base, blocks.n_terms], np.int32),
        "dot_start": dot_start,
        "dot_other": dot_other,
        "dot_feature": dot_feature,
        "product_first": first,
        "product_second": second,
        "product_coupling": coupling,
        "slot_start": slot_start,
        "slot_function": slot_function,
        "source_start": source_start,
        "source_component": source_component,
        "source_factor": source_factor,
        "most_slots": int(np.diff(slot_start.reshape(-1, n_lm + 1)[:, [0, -1]]).max(initial=0)),
    }
