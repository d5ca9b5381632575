"""Units in i-PI's output files, and the dimension of every property whose unit i-PI leaves out."""

from comitia.units import BOHR, HARTREE

PREFIXES = {
    "": 1.0,
    "tera": 1e12,
    "giga": 1e9,
    "mega": 1e6,
    "kilo": 1e3,
    "milli": 1e-3,
    "micro": 1e-6,
    "nano": 1e-9,
    "pico": 1e-12,
    "femto": 1e-15,
    "atto": 1e-18,
}

KELVIN = 3.1668152e-6  # hartree, i-PI 3.3
_SECOND = 4.1341373e16  # atomic units of time, i-PI 3.3
_TIME = 1e15 / _SECOND  # fs in one atomic unit of time

# dimension -> (our unit, its value of one atomic unit, {i-PI's unit: its value in atomic units})
DIMENSIONS = {
    "energy": (
        "eV",
        HARTREE,
        {"electronvolt": 1 / HARTREE, "j/mol": 3.8087989e-7, "cal/mol": 1.5946679e-6, "kelvin": KELVIN},
    ),
    "temperature": ("K", 1 / KELVIN, {"kelvin": KELVIN}),
    "time": ("fs", _TIME, {"second": _SECOND}),
    "length": ("Å", BOHR, {"angstrom": 1 / BOHR, "meter": 1e10 / BOHR}),
    "volume": ("Å^3", BOHR**3, {"angstrom3": 6.748334231}),
    "force": ("eV/Å", HARTREE / BOHR, {"ev/ang": 0.019446904, "newton": 12137805.0}),
    "velocity": ("Å/fs", BOHR / _TIME, {"m/s": 4.5710289e-7}),
    "pressure": (
        "eV/Å^3",
        HARTREE / BOHR**3,
        {"bar": 3.398827377e-9, "atmosphere": 3.44386184e-9, "pascal": 3.398827377e-14, "ev/ang3": 0.0054456877},
    ),
    "number": ("", 1.0, {}),
}

PROPERTIES = {
    "number": (
        "step ensemble_lp Eenvelope isotope_scfep isotope_tdfep isotope_zetatd isotope_zetasc chin_weight ti_weight "
        "displacedpath scaledcoords fermionic_sign exchange_distinct_prob exchange_all_prob hweights_component "
        "bweights_component"
    ),
    "time": "time",
    "temperature": "temperature ensemble_temperature",
    "volume": "volume",
    "length": ("cell_h r_gyration atom_x atom_x_path positions x_centroid x_centroid_even x_centroid_odd "),
    "energy": (
        "conserved interaction_energy ensemble_bias potential bead_potentials potential_opsc potential_tdsc "
        "pot_component pot_component_raw spring kinetic_md kinetic_cv kinetic_td kinetic_prsc kinetic_tdsc "
        "kinetic_opsc kinetic_tens kinetic_ij virial_fq ti_pot"
    ),
    "pressure": (
        "ensemble_pressure vir_component vir_component_raw stress_md pressure_md kstress_md virial_md stress_cv "
        "pressure_tdsc vir_tdsc kstress_tdsc pressure_cv kstress_cv virial_cv"
    ),
    "force": "forcemod atom_f forces f_centroid",
    "velocity": "atom_v vcom velocities v_centroid",
}

_DIMENSION_OF = {name: dimension for dimension, names in PROPERTIES.items() for name in names.split()}

_WITH_POTENTIAL = (
    "potential bead_potentials potential_opsc potential_tdsc interaction_energy conserved pot_component "
    "pot_component_raw kinetic_cv kinetic_prsc kinetic_tdsc kinetic_opsc kinetic_tens kinetic_ij virial_fq ti_pot "
    "vir_component vir_component_raw stress_md pressure_md virial_md stress_cv pressure_tdsc vir_tdsc kstress_tdsc "
    "pressure_cv kstress_cv virial_cv forcemod atom_f forces f_centroid"
)
CONTAINS_POTENTIAL = frozenset(_WITH_POTENTIAL.split())
"""Properties whose estimator holds the potential: under another member they are another observable."""


def conversion(name, unit):
    """Factor that takes a property as i-PI printed it to our units, and the name of our unit.

    Parameters
    ----------
    name : str, i-PI's name of the property or trajectory, without unit and arguments
    unit : str, what stood in braces; empty or "atomic_unit" for i-PI's default

    Returns
    -------
    factor : float
    our_unit : str
        where dimension or unit is not known, the factor is 1 and this is the unit as printed
    """
    dimension = _DIMENSION_OF.get(name)
    asked = unit.strip().lower()
    atomic = asked in ("", "automatic", "atomic_unit")
    if dimension is None:
        return 1.0, "atomic_unit" if atomic else unit
    ours, factor, known = DIMENSIONS[dimension]
    if atomic:
        return factor, ours
    if asked == "ase" and dimension in ("energy", "length"):
        return 1.0, ours
    for prefix, scale in PREFIXES.items():
        if asked.startswith(prefix) and asked[len(prefix) :] in known:
            return factor * known[asked[len(prefix) :]] * scale, ours
    return 1.0, unit
