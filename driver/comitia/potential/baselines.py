"""What is known before anything is fitted: the repulsive core."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from comitia.density import Descriptor
from comitia.errors import ModelError


@dataclass(frozen=True)
class ZBL:
    """Screened repulsion of nuclei at distances that no training structure shows, switched off smoothly.

    Attributes
    ----------
    species : (n_species,) int array, atomic numbers, increasing
    inner, outer : (n_species, n_species) arrays, Å: the full repulsion up to `inner`, none from `outer` on; a pair
        with outer = 0 has none at all

    Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Solids, Pergamon (1985).
    """

    species: np.ndarray
    inner: np.ndarray
    outer: np.ndarray

    def __post_init__(self):
        n = len(self.species)
        for name, radius in (("inner", self.inner), ("outer", self.outer)):
            if (
                np.shape(radius) != (n, n)
                or not np.all(np.isfinite(radius))
                or not np.allclose(radius, np.transpose(radius))
            ):
                raise ModelError(f"ZBL core: {name} must be a symmetric ({n}, {n}) array of distances in Å")
        if np.any((self.outer > 0) & ~((self.inner >= 0) & (self.inner < self.outer))):
            raise ModelError("ZBL core: each inner radius must lie between 0 and the outer one")

    @property
    def parameters(self):
        """Radii and nuclear charges as the kernel takes them."""
        return self.inner, self.outer, np.asarray(self.species, float)

    @cached_property
    def _descriptor(self):
        cutoff = max(float(np.max(self.outer)), 0.1)
        return Descriptor.build(self.species, cutoff, n_max=[1, 0, 0], l_max=[0, 0, 0])

    @cached_property
    def _kernel(self):
        return self._descriptor.kernel(self.parameters)

    def compute(self, atoms):
        """Energy (eV), forces (n_atoms, 3) (eV/Å) and virial (3, 3) (eV) of the core alone."""
        zero = np.zeros((self._descriptor.n_species, self._descriptor.n_features))
        found = self._kernel.evaluate(self._descriptor.batch([atoms]), zero)
        return float(found["atomic_energies"].sum()), found["forces"], found["virials"][0]
