"""Numbers as people read them."""

import math


def decimals(error):
    """Decimals that show two digits of an error."""
    return max(0, 1 - math.floor(math.log10(abs(error)))) if error else 4


def with_error(value, errors):
    """Texts of a value and its errors, all with the decimals that the largest error makes meaningful."""
    known = [error for error in errors if error]
    places = decimals(max(known)) if known else 4
    return [f"{value:.{places}f}", *("" if error is None else f"{error:.{places}f}" for error in errors)]
