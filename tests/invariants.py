"""How many independent invariants there are, counted from characters of the rotation group."""

import math

import numpy as np


def count_invariants(channels):
    """Linearly independent invariants, even under inversion, of degree one in each of up to four channels (q, l).

    Equal channels are the same variables, so their product is symmetrised: the multiplicity of the trivial
    representation of SO(3) in a product of symmetric powers, by averaging characters over the group.
    """
    if sum(l for _, l in channels) % 2:
        return 0
    n = 4 * sum(l for _, l in channels) + 8  # exact for trigonometric polynomials of lower degree
    angles = 2 * math.pi * np.arange(n) / n

    def character(l, angle):
        return 1 + 2 * sum(np.cos(m * angle) for m in range(1, l + 1)) + 0 * angle

    product = np.ones(n)
    for (_, l), multiplicity in {c: channels.count(c) for c in channels}.items():
        one, two, three, four = (character(l, k * angles) for k in (1, 2, 3, 4))
        product *= {  # cycle indices of the symmetric groups
            1: one,
            2: (one**2 + two) / 2,
            3: (one**3 + 3 * one * two + 2 * three) / 6,
            4: (one**4 + 6 * one**2 * two + 3 * two**2 + 8 * one * three + 6 * four) / 24,
        }[multiplicity]
    return round(np.mean((1 - np.cos(angles)) * product))
