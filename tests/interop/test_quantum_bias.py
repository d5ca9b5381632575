"""A bias of PLUMED on path integrals of i-PI: on every bead it is one of the quantum ensemble, and can be taken out."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from comitia.engines.ipi_output import read_properties
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.engines.plumed import INSTALL, find_kernel
from comitia.thermodynamics import reweight

TEMPERATURE, N_BEADS, MASS = 300.0, 16, 1.0  # K, u
HBAR, KB = 6.582119569e-16, 8.617333262e-5  # eV s, eV/K
U = 1.0364269657e-28  # eV s²/Å²
FREQUENCY = 3.0 * KB * TEMPERATURE / HBAR  # rad/s: hbar omega = 3 kT; the classical variance is 0.6 of the quantum
STIFFNESS = MASS * U * FREQUENCY**2  # eV/Å²
INPUT = """<simulation verbosity='low' floatformat='%24.16e'>
 <output prefix='run'>
  <properties stride="5" filename="out">
   [ step, potential{{electronvolt}}, ensemble_bias{{electronvolt}} ] </properties>
  <trajectory stride='5' filename='pos' cell_units='angstrom'> positions{{angstrom}} </trajectory>
 </output>
 <total_steps> 24000 </total_steps> <prng><seed> 11 </seed></prng>
 <ffdirect name='oscillator'><pes> harmonic </pes><parameters> {{k1: {stiffness}}} </parameters></ffdirect>
 <ffplumed name='bias'><file mode='xyz'> start.xyz </file><plumed_dat> plumed.dat </plumed_dat></ffplumed>
 <system>
  <initialize nbeads='{beads}'><file mode='xyz'> start.xyz </file><masses mode='manual'> [ {mass} ] </masses>
   <velocities mode='thermal' units='kelvin'> 300 </velocities></initialize>
  <forces><force forcefield='oscillator'/></forces>
  <ensemble><temperature units='kelvin'> 300 </temperature>
   <bias><force forcefield='bias' nbeads='{beads}'/></bias></ensemble>
  <motion mode='dynamics'><fixcom> False </fixcom><dynamics mode='nvt' splitting='baoab'>
   <timestep units='femtosecond'> 1.0 </timestep>
   <thermostat mode='pile_l'><tau units='femtosecond'> 20 </tau></thermostat></dynamics></motion>
 </system>
</simulation>
"""
HARTREE, BOHR, ELECTRON_MASS = 27.211386245988, 0.529177210544, 5.48579909e-4


def variance(stiffness):
    """Of a coordinate of a harmonic ring polymer of P beads, Å²: sum over its normal modes."""
    chain = 2 * N_BEADS * KB * TEMPERATURE / HBAR * np.sin(np.arange(N_BEADS) * np.pi / N_BEADS)
    return KB * TEMPERATURE / (MASS * U) * np.sum(1 / (chain**2 + stiffness / (MASS * U)))


@pytest.mark.long
@pytest.mark.timeout(900)  # 16 copies of PLUMED under i-PI: 4 min when the machine is free
@pytest.mark.skipif(find_kernel() is None, reason=f"no PLUMED kernel; {INSTALL}")
def test_a_bias_on_every_bead_is_a_quantum_oscillator_of_its_own(tmp_path):
    (tmp_path / "start.xyz").write_text(
        "1\n# CELL(abcABC): 50 50 50 90 90 90 positions{angstrom} cell{angstrom}\nH 0.05 0.02 -0.03\n"
    )
    (tmp_path / "plumed.dat").write_text(
        f"UNITS LENGTH=A ENERGY=eV\np: POSITION ATOM=1 NOPBC\nb: RESTRAINT ARG=p.x AT=0.0 KAPPA={STIFFNESS}\n"
    )
    given = {"stiffness": STIFFNESS * BOHR**2 / HARTREE, "beads": N_BEADS, "mass": MASS / ELECTRON_MASS}
    (tmp_path / "input.xml").write_text(INPUT.format(**given))
    environment = os.environ | {"PLUMED_KERNEL": str(find_kernel()), "OMP_NUM_THREADS": "1"}
    program = Path(sysconfig.get_path("scripts")) / "i-pi"
    subprocess.run([sys.executable, program, "input.xml"], cwd=tmp_path, env=environment, check=True,
                   timeout=880, stdout=subprocess.DEVNULL)  # fmt: skip
    positions = read_trajectory(sorted(tmp_path.glob("run.pos_*.xyz"))).positions[200:, :, 0]
    columns = {column.name: column.values for column in read_properties(tmp_path / "run.out").columns}
    bias, energies = columns["ensemble_bias"][200:], columns["potential"][200:]
    x, y, z = np.moveaxis((positions**2).mean(axis=1), -1, 0)
    np.testing.assert_allclose(bias, 0.5 * STIFFNESS * x, rtol=1e-3, atol=1e-6)
    for series, weights, stiffness in (
        (x, None, 2 * STIFFNESS),  # the biased ensemble is that of the stiffer oscillator
        (x, bias, STIFFNESS),  # freed of the bias it is that of the other
        (y, None, STIFFNESS),
        (z, None, STIFFNESS),
    ):
        found = reweight(series, energies, TEMPERATURE, bias=weights)
        assert found.statistical_error < 0.08 * found.mean
        assert abs(found.mean - variance(stiffness)) < 4 * found.statistical_error
