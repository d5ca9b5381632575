#!/usr/bin/env python
"""The free energy of expansion by LDA: the study's answer beside that of Markov chains in the ensemble of LDA itself.

python compare.py [FOLDER]      # of the study's results, by default quick
"""

import json
import sys
from pathlib import Path

import numpy as np

from comitia.thermodynamics import perturb_both_ends
from comitia.units import KB

HERE = Path(__file__).resolve().parent
N_ATOMS = 2


def directly():
    """F(expanded) - F(equilibrium) and its error, eV, from energies of LDA on states that LDA itself has drawn."""
    given = json.loads((HERE / "data" / "direct.json").read_text())
    chains = {
        state: {key: np.array(chain[key]) for key in ("energy", "mapped")} for state, chain in given["chains"].items()
    }
    low, high = chains["equilibrium"], chains["expanded"]
    found = perturb_both_ends((low["energy"], low["mapped"]), (high["mapped"], high["energy"]), given["temperature"])
    edges = given["lattice"]
    ideal = -3 * N_ATOMS * KB * given["temperature"] * np.log(edges["expanded"] / edges["equilibrium"])
    return found.delta_f + ideal, found.error


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "quick"
    results = json.loads((folder / "results.json").read_text())
    fitted, corrected = results["observables"]["expansion"], results["perturbation"]["lda"]["observables"]["expansion"]
    value, error = (1e3 * number for number in directly())
    for name, number in (("potential", fitted), ("corrected to LDA", corrected)):
        print(f"{name:18s} {number['value']:8.2f} ± {number['total_error']:.2f} meV  {number['verdict']}")
    print(f"{'LDA directly':18s} {value:8.2f} ± {error:.2f} meV")
    z = (corrected["value"] - value) / np.hypot(corrected["total_error"], error)
    print(f"corrected - direct: {corrected['value'] - value:.2f} meV, {z:.1f} standard deviations")
    return 0 if abs(z) < 3 else 1


if __name__ == "__main__":
    sys.exit(main())
