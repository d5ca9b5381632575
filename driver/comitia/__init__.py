"""comitia: machine-learned potentials with committees, and averages with their errors."""

import importlib

__version__ = "0.1.0"

_LAZY = {
    "load": ("comitia.engines.composed", "load_potential"),
    "Potential": ("comitia.potential", "Potential"),
    "Prediction": ("comitia.potential", "Prediction"),
    "thermodynamics": ("comitia.thermodynamics", None),
    "errors": ("comitia.errors", None),
    "units": ("comitia.units", None),
}

__all__ = ["Potential", "Prediction", "__version__", "errors", "load", "thermodynamics", "units"]


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'comitia' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = importlib.import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__():
    return sorted(__all__)
