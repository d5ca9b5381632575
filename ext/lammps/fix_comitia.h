// SPDX-License-Identifier: GPL-2.0-or-later
// fix comitia: energy, forces and virial from a running `comitia serve`, whatever potential that serves.
//
//     fix ID all comitia unix NAME [keyword value ...]
//     fix ID all comitia inet HOST PORT [keyword value ...]
//         elements E1 E2 ...   of the atom types: the client compares them with its template
//         sockets PREFIX       of NAME; /tmp/ipi_ by default, as i-PI
//         wait SECONDS         until the client is there; 60 by default
//         timeout SECONDS      until it has answered; 3600 by default
//
// Scalar: the energy, eV. Vector, eV: [1] uncertainty of the energy, [2] ... energies of the members, of a committee.
#ifndef COMITIA_FIX_COMITIA_H
#define COMITIA_FIX_COMITIA_H

#include "fix.h"
#include "force_connection.h"

#include <memory>

namespace LAMMPS_NS
{

class FixComitia : public Fix
{
  public:
    FixComitia(LAMMPS *lmp, int narg, char **arg);
    ~FixComitia() override;

    int setmask() override;
    void init() override;
    void setup(int vflag) override;
    void min_setup(int vflag) override;
    void post_force(int vflag) override;
    void min_post_force(int vflag) override;
    double compute_scalar() override;
    double compute_vector(int i) override;
    double memory_usage() override;
    // does nothing, as LAMMPS's own, whose name depends on the integers: a plugin for others could not say so
    void set_molecule(int, tagint, int, double *, double *, double *) override {}

  private:
    std::unique_ptr<comitia::force_connection> connection; // of rank 0
    std::vector<std::string> elements;                     // of the atom types
    std::vector<double> gathered;                          // x, y, z and type by tag
    std::vector<int> types;                                // by tag, of the first structure
    std::vector<double> positions, vector;
    comitia::force_answer answer;
    double energy;

    void gather();
    void ask();
    void check_types();
    void read_extras();
    std::string species() const;
    void together(const std::string &problem);
};

} // namespace LAMMPS_NS

#endif
