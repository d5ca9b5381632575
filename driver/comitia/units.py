"""Units. Inside: eV, Å, u, fs, K. On the wire: Hartree atomic units, with the constants of i-PI.

Energies that cross the wire are converted with i-PI's own hartree and bohr, so that what i-PI prints in
electronvolt is what the potential computed; they differ from CODATA 2018 by 1e-7 and 2e-8 relative.
"""

HARTREE = 1 / 0.036749326  # eV, i-PI 3.3
BOHR = 1 / 1.8897261  # Å, i-PI 3.3
KB = 8.617333262e-5  # eV/K, CODATA 2018
