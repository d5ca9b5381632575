"""The potential inside i-PI's own process, without a socket: i-PI loads this file.

    <ffdirect name='comitia'>
      <pes> custom </pes> <pes_path> .../comitia/engines/ipi_driver.py </pes_path>
      <parameters> {model: model.safetensors, template: init.xyz} </parameters>
    </ffdirect>

For comparisons with the force client. Under `comitia sample` the client is the better choice: it is watched, and a
crash in it does not take the sampling with it.
"""

import numpy as np
from ipi.pes.dummy import Dummy_driver

__DRIVER_NAME__ = "comitia"
__DRIVER_CLASS__ = "ComitiaDriver"


class ComitiaDriver(Dummy_driver):
    """A potential as i-PI's `<ffdirect>` calls it.

    Parameters
    ----------
    model : path of the model file
    template : path of a structure file with the species of the simulation
    threads : int, default all cores
    """

    def __init__(self, model, template, threads=None, **options):
        import comitia
        from comitia.engines.ipi_structure import read_initial_structure
        from comitia.protocol.boundary import WireResults

        potential = comitia.load(str(model))
        atoms = read_initial_structure(str(template), potential.species)
        self._evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads=threads and int(threads))
        self._results = WireResults()
        super().__init__(**options)

    def compute(self, cell, pos):
        """Energy, forces, virial and extras of one structure, or of lists of them, as i-PI takes them.

        Parameters
        ----------
        cell : (3, 3) array, bohr, lattice vectors in columns, or a list of them
        pos : (n_atoms, 3) array, bohr, or a list of them
        """
        from comitia.units import BOHR

        single = not isinstance(cell, list)
        cells, positions = ([cell], [pos]) if single else (cell, pos)
        rows = np.ascontiguousarray(np.transpose(cells, (0, 2, 1))) * BOHR
        shape = (len(cells), self._evaluator.n_atoms, 3)
        predictions = self._evaluator.compute(np.reshape(positions, shape) * BOHR, rows)
        results = [
            (float(energy), forces, virial, extras)
            for energy, forces, virial, extras in zip(*self._results(predictions), strict=True)
        ]
        return results[0] if single else results
