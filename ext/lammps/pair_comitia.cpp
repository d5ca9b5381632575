// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair_comitia.h"

#include "atom.h"
#include "comm.h"
#include "elements.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

using namespace LAMMPS_NS;

// xx yy zz xy xz yz of a tensor in rows, and the rest of LAMMPS's nine: yx zx zy
static constexpr int VOIGT[9] = {0, 4, 8, 1, 2, 5, 3, 6, 7};

PairComitia::PairComitia(LAMMPS *lmp) : Pair(lmp), n_builds(-1)
{
    single_enable = 0;
    restartinfo = 0;
    one_coeff = 1;
    manybody_flag = 1;
    no_virial_fdotr_compute = 1;
    centroidstressflag = CENTROID_AVAIL;
}

PairComitia::~PairComitia()
{
    evaluator_free(&state);
    delete[] pvector;
    pvector = nullptr;
    if (allocated && !copymode) {
        memory->destroy(setflag);
        memory->destroy(cutsq);
    }
}

void PairComitia::allocate()
{
    const int n = atom->ntypes + 1;
    memory->create(setflag, n, n, "pair:setflag");
    memory->create(cutsq, n, n, "pair:cutsq");
    std::fill_n(setflag[0], n * n, 0);
    map = new int[n];
    allocated = 1;
}

void PairComitia::settings(int narg, char ** /*arg*/)
{
    if (narg > 0)
        error->all(FLERR, "pair_style comitia takes no arguments: name the model in pair_coeff * * MODEL ELEMENTS");
}

int PairComitia::n_members() const
{
    return model ? model->n_members() : 0;
}

// The bytes of a file, read by one rank.
std::string PairComitia::read_file(const std::string &path)
{
    std::string content;
    bigint size = -1;
    if (comm->me == 0) {
        const std::string found = utils::get_potential_file_path(path);
        std::ifstream file(found, std::ios::binary);
        if (!found.empty() && file) {
            content.assign(std::istreambuf_iterator<char>(file), {});
            size = file.bad() ? -1 : static_cast<bigint>(content.size());
        }
    }
    MPI_Bcast(&size, 1, MPI_LMP_BIGINT, 0, world);
    if (size < 0 || size > MAXSMALLINT)
        error->all(FLERR, "Model {} cannot be read: check the path", path);
    content.resize(size);
    MPI_Bcast(&content[0], static_cast<int>(size), MPI_CHAR, 0, world);
    return content;
}

void PairComitia::coeff(int narg, char **arg)
{
    if (!allocated)
        allocate();
    if (narg != 3 + atom->ntypes)
        error->all(FLERR, "pair_coeff of comitia needs * * MODEL and one element for each of the {} atom types",
                   atom->ntypes);
    try {
        model = std::make_unique<comitia::model>(read_file(arg[2]));
    } catch (const comitia::model_error &problem) {
        error->all(FLERR, "Model {} cannot be used: {}; copy or fit it again", arg[2], problem.what());
    } catch (const std::bad_alloc &) {
        error->all(FLERR, "Not enough memory for model {}", arg[2]);
    }
    evaluator_free(&state); // its memory was for another model
    map_element2type(narg - 3, arg + 3);
    species_of.assign(atom->ntypes + 1, -1);
    std::string known;
    for (int z : model->species)
        known += std::string(known.empty() ? "" : ", ") + comitia::SYMBOLS[z - 1];
    for (int type = 1; type <= atom->ntypes; type++) {
        if (map[type] < 0)
            continue;
        const std::string element = elements[map[type]];
        for (int s = 0; s < model->n_species(); s++)
            if (element == comitia::SYMBOLS[model->species[s] - 1])
                species_of[type] = s;
        if (species_of[type] < 0)
            error->all(FLERR, "Element {} of atom type {} is not in model {}, which knows {}", element, type, arg[2],
                       known);
    }
    cutforce = model->core().cutoff;
    delete[] pvector;
    nextra = model->n_members() > 1 ? model->n_members() + 1 : 0;
    pvector = nextra > 0 ? new double[nextra]() : nullptr;
    members.assign(model->n_members(), 0.0);
    sums.assign(model->width(), 0.0);
}

void PairComitia::init_style()
{
    if (strcmp(update->unit_style, "metal") != 0)
        error->all(FLERR, "pair_style comitia gives eV and Angstrom: say units metal");
    if (force->newton_pair == 0)
        error->all(FLERR, "pair_style comitia needs newton pair on");
    if (atom->tag_enable == 0)
        error->all(FLERR, "pair_style comitia needs atom IDs: say atom_modify id yes");
    if (model->is_correction && !utils::strmatch(force->pair_style, "^hybrid/overlay"))
        error->all(FLERR, "The model is a correction to a baseline: give both by pair_style hybrid/overlay, or fit "
                          "total energies");
    for (int bonds = 1; atom->molecular != 0 && bonds <= 3; bonds++)
        if (force->special_lj[bonds] == 0.0 && force->special_coul[bonds] == 0.0)
            error->all(FLERR, "pair_style comitia needs bonded neighbours too: say special_bonds lj/coul 1.0 1.0 1.0");
    neighbor->add_request(this, NeighConst::REQ_FULL);
}

double PairComitia::init_one(int /*i*/, int /*j*/)
{
    return model->core().cutoff;
}

void PairComitia::setup()
{
    n_builds = -1;
}

// LAMMPS's list, with the neighbours of each centre in the order of their index.
void PairComitia::take_neighbours()
{
    const int n_all = atom->nlocal + atom->nghost;
    order.assign(list->ilist, list->ilist + list->inum);
    place.assign(n_all, -1);
    for (int i = 0; i < list->inum; i++)
        place[order[i]] = i;
    for (int i = 0; i < n_all; i++)
        if (place[i] < 0) {
            place[i] = static_cast<int32_t>(order.size());
            order.push_back(i);
        }
    start.assign(1, 0);
    neighbour.clear();
    for (int centre = 0; centre < list->inum; centre++) {
        const int i = order[centre];
        for (int n = 0; n < list->numneigh[i]; n++)
            neighbour.push_back(place[list->firstneigh[i][n] & NEIGHMASK]);
        std::sort(neighbour.begin() + start.back(), neighbour.end());
        start.push_back(static_cast<int64_t>(neighbour.size()));
    }
    n_builds = neighbor->ncalls;
}

void PairComitia::take_positions()
{
    const size_t n = order.size();
    species.resize(n);
    positions.resize(3 * n);
    for (size_t i = 0; i < n; i++) {
        const int s = species_of[atom->type[order[i]]];
        species[i] = s < 0 ? 0 : s; // of another pair style: nobody's neighbour
        std::copy_n(atom->x[order[i]], 3, &positions[3 * i]);
    }
    neighbours.n_atoms = start.size() - 1;
    neighbours.n_pairs = neighbour.size();
    neighbours.start = start.data();
    neighbours.neighbour = neighbour.data();
    atoms.n_atoms = n;
    atoms.n_silent = n - neighbours.n_atoms;
    atoms.species = species.data();
    atoms.positions = positions.data();
    atoms.list = &neighbours;
}

void PairComitia::evaluate_atoms(const evaluation &what)
{
    if (evaluate(&state, &model->core(), 1, &atoms, comm->nthreads, &what))
        error->one(FLERR, "Not enough memory for {} atoms of this rank: use more ranks", atom->nlocal);
}

void PairComitia::refuse_non_finite()
{
    if (linear_finite(neighbours.n_atoms, energies.data()) && linear_finite(forces.size(), forces.data()))
        return;
    size_t bad = 0;
    while (bad + 1 < neighbours.n_atoms && std::isfinite(energies[bad]) && linear_finite(3, &forces[3 * bad]))
        bad++;
    error->one(FLERR,
               "Energy or force near atom {} is not finite at step {}: two atoms may be in the same place, or "
               "far outside what the model was trained on",
               atom->tag[order[bad]], update->ntimestep);
}

// Energies of the atoms with their reference energies.
void PairComitia::add_energies()
{
    for (size_t i = 0; i < neighbours.n_atoms; i++) {
        const double energy = energies[i] + model->reference_energies[species[i]];
        if (eflag_global)
            eng_vdwl += energy;
        if (eflag_atom)
            eatom[order[i]] += energy;
    }
}

// compute pair adds up what the ranks say: energies of the members as far as they are of this rank, and the
// uncertainty on the first.
void PairComitia::add_members()
{
    const int n = model->n_members();
    const double none = 0;
    linear_members(1, n, model->width(), sums.data(), model->deviations.data(), &none, members.data());
    for (int k = 0; k < n; k++)
        pvector[k + 1] = eng_vdwl + members[k];
    MPI_Allreduce(MPI_IN_PLACE, members.data(), n, MPI_DOUBLE, MPI_SUM, world);
    double square = 0, total = 0;
    for (int k = 0; k < n; k++)
        total += members[k];
    for (int k = 0; k < n; k++)
        square += (members[k] - total / n) * (members[k] - total / n);
    pvector[0] = comm->me == 0 ? std::sqrt(square / (n - 1)) : 0.0;
}

void PairComitia::add_virials(const double *total)
{
    if (vflag_global)
        for (int v = 0; v < 6; v++)
            virial[v] += 0.5 * (total[VOIGT[v]] + total[VOIGT[v < 3 ? v : v + 3]]);
    for (size_t i = 0; (vflag_atom || cvflag_atom) && i < order.size(); i++) {
        const double *own = &virials[9 * i];
        for (int v = 0; vflag_atom && v < 6; v++)
            vatom[order[i]][v] += 0.5 * (own[VOIGT[v]] + own[VOIGT[v < 3 ? v : v + 3]]);
        for (int v = 0; cvflag_atom && v < 9; v++)
            cvatom[order[i]][v] += own[VOIGT[v]];
    }
}

void PairComitia::compute(int eflag, int vflag)
{
    ev_init(eflag, vflag);
    if (neighbor->ago == 0 || n_builds != neighbor->ncalls)
        take_neighbours();
    take_positions();
    double total[9];
    energies.resize(neighbours.n_atoms);
    forces.resize(positions.size());
    evaluation what{};
    what.weights = model->mean.data();
    what.atomic_energies = energies.data();
    what.forces = forces.data();
    what.virials = total;
    if (vflag_atom || cvflag_atom) {
        virials.resize(3 * positions.size());
        what.atomic_virials = virials.data();
    }
    if (eflag_global && nextra > 0)
        what.sums = sums.data();
    evaluate_atoms(what);
    refuse_non_finite();
    for (size_t i = 0; i < order.size(); i++)
        for (int a = 0; a < 3; a++)
            atom->f[order[i]][a] += forces[3 * i + a];
    if (eflag_either)
        add_energies();
    if (what.sums != nullptr)
        add_members();
    if (vflag_either)
        add_virials(total);
}

void PairComitia::atomic_uncertainty(double *uncertainty)
{
    std::fill_n(uncertainty, atom->nlocal, 0.0);
    if (start.empty() || order.size() != static_cast<size_t>(atom->nlocal + atom->nghost))
        error->one(FLERR, "The uncertainty of atoms needs the neighbours of a run: say run 0 before");
    take_positions();
    const int n = model->n_members();
    std::vector<double> apart(neighbours.n_atoms * n + 1);
    evaluation what{};
    what.n_members = n;
    what.deviations = model->atomic_deviations.data();
    what.atomic_members = apart.data();
    evaluate_atoms(what);
    for (size_t i = 0; i < neighbours.n_atoms; i++) {
        double total = 0, square = 0;
        for (int k = 0; k < n; k++)
            total += apart[i * n + k];
        for (int k = 0; k < n; k++)
            square += (apart[i * n + k] - total / n) * (apart[i * n + k] - total / n);
        uncertainty[order[i]] = std::sqrt(square / (n - 1));
    }
}

double PairComitia::memory_usage()
{
    return Pair::memory_usage() + order.capacity() * (sizeof(int) + 2 * sizeof(int32_t) + 7 * sizeof(double)) +
           start.capacity() * sizeof(int64_t) + neighbour.capacity() * sizeof(int32_t);
}
