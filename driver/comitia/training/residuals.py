"""What fitted models say of the training structures: by the kernel, at a fraction of the cost of the design matrix."""

import numpy as np

from comitia.structures import VOIGT
from comitia.training.design import over_groups
from comitia.training.validation import compare


def transposed_product(kernel, batch, weight, record):
    """X^T ρ e of one structure, (n_species * n_features,): its errors, weighted, through the transposed rows.

    The row of an energy is the summed features; those of forces and virial are minus their derivatives along
    displacements and strains, so that one tangent along the errors is the sum over all of them.

    Parameters
    ----------
    kernel : Kernel of the descriptor
    batch : Batch of the structure
    weight : {kind: ρ}
    record : Record, the errors
    """
    zero = np.zeros((kernel.n_species, kernel.n_features))
    total = zero.ravel().copy()
    if record.energy_error is not None:
        sums = kernel.evaluate(batch, zero, forces=False, virials=False, sums=True)["sums"]
        total += weight["energy"] * record.energy_error * sums.ravel()
    if record.force_error is not None or record.virial_error is not None:
        directions, strain = np.zeros((record.n_atoms, 3)), np.zeros((1, 3, 3))
        if record.force_error is not None:
            directions = weight["forces"] * record.force_error.reshape(-1, 3)
        if record.virial_error is not None:
            for (i, j), error in zip(VOIGT, record.virial_error, strict=True):
                strain[0, j, i] += weight["virial"] * error
        total -= kernel.tangent(batch, directions, 1, strain).ravel()
    return total


class Residuals:
    """Errors of models on the training structures, group by group in threads.

    Parameters
    ----------
    structures : list of LabelledStructure
    group : (n_structures,) int array
    scale : list of {kind: float}, what the rows of each structure are multiplied by
    n_threads : int
    """

    def __init__(self, structures, group, scale, n_threads):
        self.structures, self.group, self.scale, self.n_threads = structures, group, scale, n_threads

    def __call__(self, potential, kind_weights, step=lambda: None, held_out=None, folds=None):
        """Errors of a potential on all structures, and of those fitted without a fold on its structures.

        Parameters
        ----------
        potential : Potential of one member
        kind_weights : {kind: ρ}, or None where the gradient is not asked for
        step : function called after every structure
        held_out : {fold: Potential} or None
        folds : (n_groups,) int array, −1 for groups that are never held out

        Returns
        -------
        training : list of Record
        held_out : list of Record
        gradient : (n_columns,) array, Σ_k ρ_k X_k^T (y_k − X_k w); zero where it is not asked for
        """
        descriptor = potential.descriptor
        kernel = descriptor.kernel()

        def work(group, indices):
            fold = -1 if folds is None else int(folds[group])
            other, gradient, records = (held_out or {}).get(fold), np.zeros(descriptor.width), []
            for index in indices:
                structure = self.structures[index]
                found = potential.compute(structure.atoms, n_threads=1)
                record, held = compare(structure, found.energy, found.forces, found.virial), None
                if kind_weights is not None:
                    weight = {kind: rho * self.scale[index][kind] ** 2 for kind, rho in kind_weights.items()}
                    gradient += transposed_product(kernel, descriptor.batch([structure.atoms]), weight, record)
                if other is not None:
                    found = other.compute(structure.atoms, members=True, n_threads=1)
                    spread = (found.member_energies, found.member_forces)
                    held = compare(structure, found.energy, found.forces, found.virial, *spread, fold=fold)
                records.append((record, held))
                step()
            return records, gradient

        sizes = [len(s.atoms) for s in self.structures]
        results = dict(over_groups(work, self.group, sizes, self.n_threads))
        pairs = [pair for group in sorted(results) for pair in results[group][0]]
        gradient = sum(results[group][1] for group in sorted(results))
        return [one for one, _ in pairs], [held for _, held in pairs if held is not None], gradient
