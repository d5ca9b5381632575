"""The feature list, arranged for the forces of all members at once (ext/core/members.h)."""

import math

import numpy as np

from comitia.density.program import coefficients


def _columns(rows, n):
    """The columns of a list of tuples of n numbers; n empty ones where there are none."""
    return list(zip(*rows, strict=True)) if rows else [()] * n


def _starts(lists):
    """Where each list begins if they stand one behind the other, and where the last ends."""
    return np.cumsum([0] + [len(entries) for entries in lists])


class _Blocks:
    """Blocks of 2 l + 1 terms: channels, then products of two blocks, each made once."""

    def __init__(self, channels):
        self.l, self.base, self.n_terms = [], [], 0
        self.products, self.couplings, self.coupling = [], {}, []
        self.index = {}
        for l, q in channels:
            self.append((q, l), l)

    def append(self, key, l):
        """A new block."""
        self.index[key] = len(self.l)
        self.l.append(l)
        self.base.append(self.n_terms)
        self.n_terms += 2 * l + 1

    def product(self, first, second, l):
        """Block of the product of two blocks coupled to l, and the sign that it is to be multiplied with."""
        sign = 1
        if (self.l[first], first) > (self.l[second], second):  # factors that trade places, see `real_coupling`
            first, second, sign = second, first, (-1) ** (self.l[first] + self.l[second] + l)
        if (first, second, l) not in self.index:
            ls = (self.l[first], self.l[second], l)
            if ls not in self.couplings:
                self.couplings[ls] = len(self.coupling)
                self.coupling += coefficients(*ls)
            self.products.append((*ls, self.base[first], self.base[second], self.n_terms, self.couplings[ls]))
            self.append((first, second, l), l)
        return self.index[first, second, l], sign


def _slopes(row, blocks):
    """Derivatives of a feature of order 2 or more: (channel, block, factor), one for each of its factors."""
    order = row[0]
    channel = [blocks.index[row[c], row[c + 1]] for c in range(1, 2 * order, 2)]
    l = row[2 : 2 * order + 1 : 2]
    if order == 2:
        return [(channel[i], channel[1 - i], 1 / math.sqrt(2 * l[0] + 1)) for i in range(2)]
    if order == 3:
        around = [(channel[i], blocks.product(channel[i - 2], channel[i - 1], l[i])) for i in range(3)]
        return [(mine, product, sign) for mine, (product, sign) in around]
    found, intermediate = [], row[9]
    for i in (0, 2):
        other, outer = blocks.product(channel[2 - i], channel[3 - i], intermediate)
        for mine, factors in ((i, (channel[i + 1], other)), (i + 1, (other, channel[i]))):
            product, sign = blocks.product(*factors, l[mine])
            found.append((channel[mine], product, sign * outer * math.sqrt(2 * intermediate + 1)))
    return found


def _slots(components, contraction, l_max):
    """Which radial functions the neighbours of each species meet, and the components behind each function and harmonic.

    Where these are the components themselves, the species needs no slots of its own.

    Parameters
    ----------
    components : (lm, function, channel), arrays over all components
    """
    slot_start, function_start, functions, bases, sources = [0], [], [], [], []
    for u in contraction.T:
        of_slot = {}
        for c, (lm, function, channel) in enumerate(zip(*components, strict=True)):
            if u[channel]:
                of_slot.setdefault((math.isqrt(lm), function, lm), []).append((c, u[channel]))
        met = sorted({(l, function) for l, function, _ in of_slot})
        slots = [of_slot[slot] for slot in sorted(of_slot)]
        first = [sum(2 * l + 1 for l, _ in met[:f]) for f in range(len(met))]
        if all(len(slot) == 1 and slot[0][1] == 1 for slot in slots):
            first, slots = [slots[f][0][0] for f in first], []
        function_start += [len(functions) + sum(other < l for other, _ in met) for l in range(l_max + 2)]
        functions += [function for _, function in met]
        bases += first
        sources += slots
        slot_start.append(len(sources))
    return slot_start, function_start, functions, bases, sources


def arrange_members(features, program, contraction, l_max):
    """Arrays of the C `member_program`.

    Parameters
    ----------
    features : (n_features, 10) int array, see `feature_list`
    program : dict, as `comitia.density.program.arrange` makes it; its components are used
    contraction : (n_channels, n_species) array
    l_max : int

    Returns
    -------
    dict of arrays and ints
    """
    channels = sorted({(int(row[c + 1]), int(row[c])) for row in features for c in (1, 3, 5, 7) if row[c] >= 0})
    blocks = _Blocks(channels)
    slopes = [{} for _ in channels]  # (block, feature) -> factor, of each channel
    constant = []
    for f, row in enumerate(features.tolist()):
        if row[0] == 1:
            constant.append((blocks.index[row[1], row[2]], f))
        elif row[0] > 1:
            for channel, block, factor in _slopes(row, blocks):
                slopes[channel][block, f] = slopes[channel].get((block, f), 0) + factor
    dots = [[(blocks.base[block], f, factor) for (block, f), factor in of.items()] for of in slopes]
    for channel, f in constant:  # the term behind all others is 1
        dots[channel].append((blocks.n_terms, f, 1.0))
    dot_other, dot_feature, dot_factor = _columns([dot for of in dots for dot in of], 3)

    components = [program[f"component_{name}"].tolist() for name in ("lm", "function", "channel")]
    slot_start, function_start, functions, bases, sources = _slots(components, np.asarray(contraction), l_max)
    source_component, source_factor = _columns([source for of in sources for source in of], 2)
    products = np.array(blocks.products, np.int32).reshape(-1, 7)
    return {
        "n_channels": len(channels),
        "n_terms": blocks.n_terms,
        "channel_base": [*blocks.base[: len(channels)], sum(2 * l + 1 for l, _ in channels)],
        "dot_start": _starts(dots),
        "dot_other": dot_other,
        "dot_feature": np.array(dot_feature, int),
        "dot_factor": np.array(dot_factor, float),
        "product_l": products[:, :3],
        "product_first": products[:, 3],
        "product_second": products[:, 4],
        "product_base": products[:, 5],
        "product_coupling": products[:, 6],
        "coupling": blocks.coupling,
        "function_start": function_start,
        "function": functions,
        "function_base": bases,
        "slot_start": slot_start,
        "source_start": _starts(sources),
        "source_component": source_component,
        "source_factor": source_factor,
        "most_slots": int(np.diff(slot_start).max(initial=0)),
    }
