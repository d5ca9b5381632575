// SPDX-License-Identifier: GPL-2.0-or-later
#include "compute_comitia_sigma.h"

#include "atom.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "pair_comitia.h"
#include "update.h"

using namespace LAMMPS_NS;

ComputeComitiaSigma::ComputeComitiaSigma(LAMMPS *lmp, int narg, char **arg)
    : Compute(lmp, narg, arg), pair(nullptr), n_most(0)
{
    if (narg != 3)
        error->all(FLERR, "compute comitia/sigma takes no arguments behind its name");
    scalar_flag = peratom_flag = 1;
    size_peratom_cols = 0;
    extscalar = 0;
    peflag = timeflag = 1; // so that the energy is made at the steps where this is asked for
}

ComputeComitiaSigma::~ComputeComitiaSigma()
{
    memory->destroy(vector_atom);
}

void ComputeComitiaSigma::init()
{
    pair = dynamic_cast<PairComitia *>(force->pair_match("^comitia", 0));
    if (pair == nullptr)
        error->all(FLERR, "compute comitia/sigma needs one pair_style comitia");
    if (pair->n_members() < 2)
        error->all(FLERR, "compute comitia/sigma: a model of one member has no uncertainty; fit it with members: 16");
}

double ComputeComitiaSigma::compute_scalar()
{
    invoked_scalar = update->ntimestep;
    if (update->eflag_global != invoked_scalar)
        error->all(FLERR, "compute comitia/sigma: the energy was not computed at this step; see compute pe");
    scalar = pair->pvector[0];
    MPI_Bcast(&scalar, 1, MPI_DOUBLE, 0, world);
    return scalar;
}

void ComputeComitiaSigma::compute_peratom()
{
    invoked_peratom = update->ntimestep;
    if (atom->nmax > n_most) {
        memory->destroy(vector_atom);
        n_most = atom->nmax;
        memory->create(vector_atom, n_most, "comitia/sigma:vector_atom");
    }
    pair->atomic_uncertainty(vector_atom);
    for (int i = 0; i < atom->nlocal; i++)
        if (!(atom->mask[i] & groupbit))
            vector_atom[i] = 0.0;
}

double ComputeComitiaSigma::memory_usage()
{
    return n_most * sizeof(double);
}
