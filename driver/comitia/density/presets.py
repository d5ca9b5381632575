"""What an accuracy asked for means: bases on the front of error against cost of elements of every kind of bonding."""

from msgspec.structs import replace

from comitia.density.descriptor import Basis

PRESETS = {
    "fast": Basis(radial="optimal", n_max=[8, 8, 4, 0], l_max=[0, 5, 3, 0], max_features=250),
    "balanced": Basis(radial="optimal", n_max=[10, 8, 8, 4], l_max=[0, 7, 6, 4], max_features=650),
    "accurate": Basis(radial="optimal", n_max=[10, 8, 8, 4], l_max=[0, 7, 6, 4], max_features=2000),
}
DEFAULT = "balanced"
WITHIN_A_COST = "accurate"  # whose basis is cut to a cost
FEWEST, MOST_COLUMNS = 700, 4800  # features per species, if that many were asked for; columns of the design matrix


def preset(accuracy, n_species):
    """`Basis` of an accuracy, or of the default; several species share a bound on the columns of the design matrix."""
    basis = PRESETS[accuracy or DEFAULT]
    return replace(basis, max_features=min(basis.max_features, max(FEWEST, MOST_COLUMNS // n_species)))
