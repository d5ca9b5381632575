"""The density of neighbours and its correlations: which features a model has, and their sums over structures."""

from comitia.density.descriptor import Basis, Descriptor, Design

__all__ = ["Basis", "Descriptor", "Design"]
