"""The density of neighbours and its correlations: which features a model has, and their sums over structures."""

from comitia.density.descriptor import Descriptor, Design

__all__ = ["Descriptor", "Design"]
