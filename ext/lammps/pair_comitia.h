// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style comitia: energies, forces and virials of a committee model, and the energies of its members.
//
//     pair_style comitia
//     pair_coeff * * MODEL.safetensors Si O        elements of the atom types
//     compute members all pair comitia             [1] uncertainty of the energy, eV; [2] ... energies of the members
#ifndef COMITIA_PAIR_COMITIA_H
#define COMITIA_PAIR_COMITIA_H

#include "model.h"
#include "pair.h"

namespace LAMMPS_NS
{

class PairComitia : public Pair
{
  public:
    explicit PairComitia(LAMMPS *lmp);
    ~PairComitia() override;

    void settings(int narg, char **arg) override;
    void coeff(int narg, char **arg) override;
    void init_style() override;
    double init_one(int i, int j) override;
    void setup() override;
    void compute(int eflag, int vflag) override;
    double memory_usage() override;

    int n_members() const;

    // Standard deviation over the members of the energies of the atoms of this rank, eV; call it on every rank.
    //   uncertainty OUT [nlocal]
    void atomic_uncertainty(double *uncertainty);

  private:
    std::unique_ptr<comitia::model> model;
    std::vector<int32_t> species_of; // [ntypes + 1] index into the species of the model; -1: not ours
    evaluator state{};

    // the atoms as the core takes them: first those that are centres, then all others
    std::vector<int> order;     // LAMMPS's index of each
    std::vector<int32_t> place; // and back
    std::vector<int64_t> start; // neighbours of each centre, by increasing index
    std::vector<int32_t> neighbour;
    std::vector<int32_t> species;
    std::vector<double> positions, energies, forces, virials, sums, members;
    neighbour_list neighbours{};
    structure atoms{};
    bigint n_builds; // of LAMMPS's lists when ours was made

    std::string read_file(const std::string &path);
    void allocate();
    void take_neighbours();
    void take_positions();
    void evaluate_atoms(const evaluation &what);
    void refuse_non_finite();
    void add_energies();
    void add_members();
    void add_virials(const double *total);
};

} // namespace LAMMPS_NS

#endif
