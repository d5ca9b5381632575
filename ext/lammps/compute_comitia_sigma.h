// SPDX-License-Identifier: GPL-2.0-or-later
// compute ID GROUP comitia/sigma: uncertainty of the energy of all atoms (scalar, eV), and of the energy of each atom
// (per-atom vector, eV; 0 outside the group), as standard deviations over the members of pair_style comitia.
#ifndef COMITIA_COMPUTE_COMITIA_SIGMA_H
#define COMITIA_COMPUTE_COMITIA_SIGMA_H

#include "compute.h"

namespace LAMMPS_NS
{

class ComputeComitiaSigma : public Compute
{
  public:
    ComputeComitiaSigma(LAMMPS *lmp, int narg, char **arg);
    ~ComputeComitiaSigma() override;

    void init() override;
    double compute_scalar() override;
    void compute_peratom() override;
    double memory_usage() override;

  private:
    class PairComitia *pair;
    int n_most;
};

} // namespace LAMMPS_NS

#endif
