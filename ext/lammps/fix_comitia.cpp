// SPDX-License-Identifier: GPL-2.0-or-later
#include "fix_comitia.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "elements.h"
#include "error.h"
#include "json_text.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;
using namespace FixConst;

namespace
{

constexpr double HARTREE = 1 / 0.036749326, BOHR = 1 / 1.8897261; // eV, angstrom: those of i-PI, as comitia serve has

// CRC-32 of a text, by which comitia tells the species of the atoms in INIT; 31 bits.
int32_t species_number(const std::string &text)
{
    uint32_t crc = 0xffffffffu;
    for (const char c : text) {
        crc ^= static_cast<unsigned char>(c);
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
    }
    return static_cast<int32_t>(~crc & 0x7fffffffu);
}

bool finite(const double *values, size_t n)
{
    return std::all_of(values, values + n, [](double value) { return std::isfinite(value); });
}

} // namespace

FixComitia::FixComitia(LAMMPS *lmp, int narg, char **arg) : Fix(lmp, narg, arg), energy(0)
{
    int at = 3;
    const auto next = [&](const char *what) -> const char * {
        if (at >= narg)
            error->all(FLERR, "fix comitia: {} is missing", what);
        return arg[at++];
    };
    const std::string mode = next("unix NAME, or inet HOST PORT,");
    if (mode != "unix" && mode != "inet")
        error->all(FLERR, "fix comitia: {} is neither unix nor inet", mode);
    const std::string name = next("the name of the socket, or the host,");
    const std::string port = mode == "inet" ? next("the port") : "";
    std::string prefix = "/tmp/ipi_";
    double wait = 60, timeout = 3600;
    while (at < narg) {
        const std::string keyword = arg[at++];
        if (keyword == "elements") {
            for (int type = 0; type < atom->ntypes; type++) {
                elements.emplace_back(next("an element for every atom type"));
                const auto known = [&](const char *symbol) { return elements.back() == symbol; };
                if (std::none_of(std::begin(comitia::SYMBOLS), std::end(comitia::SYMBOLS), known))
                    error->all(FLERR, "fix comitia: {} is not a chemical element", elements.back());
            }
        } else if (keyword == "sockets") {
            prefix = next("the prefix of sockets");
        } else if (keyword == "wait" || keyword == "timeout") {
            const double seconds = utils::numeric(FLERR, next("a number of seconds"), false, lmp);
            if (!(seconds > 0))
                error->all(FLERR, "fix comitia: {} has to be larger than 0", keyword);
            (keyword == "wait" ? wait : timeout) = seconds;
        } else {
            error->all(FLERR, "fix comitia: {} is not one of elements, sockets, wait, timeout", keyword);
        }
    }
    if (igroup != 0)
        error->all(FLERR, "fix comitia: the client computes all atoms; use the group all");
    scalar_flag = vector_flag = 1;
    size_vector = 0;
    size_vector_variable = 1; // known when the client has answered
    global_freq = 1;
    extscalar = extvector = 1;
    energy_global_flag = virial_global_flag = 1;
    thermo_energy = thermo_virial = 1;

    std::string problem;
    if (comm->me == 0) {
        try {
            connection = std::make_unique<comitia::force_connection>(wait, timeout);
            if (mode == "unix")
                connection->listen_unix(name[0] == '/' ? name : prefix + name);
            else
                connection->listen_inet(name, port);
        } catch (const comitia::connection_error &found) {
            problem = found.what();
        }
    }
    together(problem);
}

FixComitia::~FixComitia() = default; // tells the client to go

int FixComitia::setmask()
{
    return POST_FORCE | MIN_POST_FORCE;
}

void FixComitia::init()
{
    if (std::strcmp(update->unit_style, "metal") != 0)
        error->all(FLERR, "fix comitia: the client counts in eV and angstrom; say units metal");
    if (!atom->tag_enable || atom->tag_consecutive() == 0)
        error->all(FLERR, "fix comitia: atoms are sent by their IDs, which have to be 1 to N; use reset_atoms id");
    if (atom->natoms > MAXSMALLINT / 4)
        error->all(FLERR, "fix comitia: too many atoms for one message; use pair_style comitia");
}

void FixComitia::setup(int vflag)
{
    post_force(vflag);
}

void FixComitia::min_setup(int vflag)
{
    post_force(vflag);
}

void FixComitia::min_post_force(int vflag)
{
    post_force(vflag);
}

// Let every rank end with what went wrong on rank 0.
void FixComitia::together(const std::string &problem)
{
    int length = static_cast<int>(problem.size());
    MPI_Bcast(&length, 1, MPI_INT, 0, world);
    if (length == 0)
        return;
    std::vector<char> text(problem.begin(), problem.end());
    text.resize(length + 1);
    MPI_Bcast(text.data(), length + 1, MPI_CHAR, 0, world);
    connection.reset(); // LAMMPS may end without calling the destructor
    error->all(FLERR, "fix comitia, step {}: {}", update->ntimestep, text.data());
}

// Positions and types by tag, on rank 0: each number comes from one rank, all others add 0.
void FixComitia::gather()
{
    const size_t n = static_cast<size_t>(atom->natoms);
    gathered.assign(4 * n, 0.0);
    for (int i = 0; i < atom->nlocal; i++) {
        double *own = &gathered[4 * (atom->tag[i] - 1)];
        std::copy(atom->x[i], atom->x[i] + 3, own);
        own[3] = atom->type[i];
    }
    if (comm->me == 0)
        MPI_Reduce(MPI_IN_PLACE, gathered.data(), static_cast<int>(4 * n), MPI_DOUBLE, MPI_SUM, 0, world);
    else
        MPI_Reduce(gathered.data(), nullptr, static_cast<int>(4 * n), MPI_DOUBLE, MPI_SUM, 0, world);
}

// Species of the atoms as comitia writes them: "OH2OH2".
std::string FixComitia::species() const
{
    std::string text;
    for (size_t first = 0, behind; first < types.size(); first = behind) {
        for (behind = first; behind < types.size() && elements[types[behind] - 1] == elements[types[first] - 1];)
            behind++;
        text += elements[types[first] - 1] + (behind - first > 1 ? std::to_string(behind - first) : "");
    }
    return text;
}

void FixComitia::check_types()
{
    const size_t n = gathered.size() / 4;
    if (types.empty())
        for (size_t i = 0; i < n; i++)
            types.push_back(static_cast<int>(gathered[4 * i + 3]));
    bool same = types.size() == n;
    for (size_t i = 0; same && i < n; i++)
        same = types[i] == static_cast<int>(gathered[4 * i + 3]);
    if (!same)
        throw comitia::connection_error("the client was started for other atoms than these now are, and cannot follow "
                                        "swaps nor exchanges; use pair_style comitia, or comitia lammps run");
}

// Send the structure that was gathered, and take the answer.
void FixComitia::ask()
{
    check_types();
    if (!connection->connected())
        connection->accept_client(elements.empty() ? 0 : species_number(species()), elements.empty() ? " " : "#");
    positions.resize(3 * types.size());
    for (size_t i = 0; i < types.size(); i++)
        for (size_t axis = 0; axis < 3; axis++)
            positions[3 * i + axis] = gathered[4 * i + axis] / BOHR;
    if (!finite(positions.data(), positions.size()))
        throw comitia::connection_error("a position is not finite; the dynamics has diverged");
    const double *h = domain->h, *inverse = domain->h_inv; // xx yy zz yz xz xy of a triangle
    const double cell[9] = {h[0] / BOHR, h[5] / BOHR, h[4] / BOHR, 0, h[1] / BOHR, h[3] / BOHR, 0, 0, h[2] / BOHR};
    const double back[9] = {
        inverse[0] * BOHR, inverse[5] * BOHR, inverse[4] * BOHR, 0, inverse[1] * BOHR, inverse[3] * BOHR, 0, 0,
        inverse[2] * BOHR};
    connection->compute(cell, back, positions, answer);
    if (!std::isfinite(answer.energy) || !finite(answer.virial, 9) ||
        !finite(answer.forces.data(), answer.forces.size()))
        throw comitia::connection_error("the energy, a force or the virial that the client sends is not finite");
    answer.energy *= HARTREE;
    for (double &component : answer.virial)
        component *= HARTREE;
    for (double &component : answer.forces)
        component *= HARTREE / BOHR;
    read_extras();
}

// Uncertainty and members, eV, where the client is of a committee.
void FixComitia::read_extras()
{
    vector.clear();
    if (answer.extras.find("committee_pot") == std::string::npos)
        return;
    comitia::json_value extras;
    try {
        extras = comitia::parse_json(answer.extras);
    } catch (const comitia::model_error &) {
        throw comitia::connection_error("the extras that the client sends are not JSON");
    }
    const comitia::json_value *uncertainty = extras.find("committee_uncertainty");
    const comitia::json_value *members = extras.find("committee_pot");
    if (uncertainty == nullptr || members == nullptr)
        return;
    vector.push_back(uncertainty->value * HARTREE);
    for (const comitia::json_value &member : members->items)
        vector.push_back(member.value * HARTREE);
    if (!finite(vector.data(), vector.size()))
        throw comitia::connection_error("the uncertainty or the energy of a member is not finite");
}

void FixComitia::post_force(int vflag)
{
    gather();
    std::string problem;
    if (comm->me == 0) {
        try {
            ask();
        } catch (const comitia::connection_error &found) {
            problem = found.what();
        }
    }
    together(problem);
    int n_vector = static_cast<int>(vector.size());
    MPI_Bcast(&n_vector, 1, MPI_INT, 0, world);
    vector.resize(n_vector);
    answer.forces.resize(3 * static_cast<size_t>(atom->natoms));
    MPI_Bcast(vector.data(), n_vector, MPI_DOUBLE, 0, world);
    MPI_Bcast(&answer.energy, 1, MPI_DOUBLE, 0, world);
    MPI_Bcast(answer.virial, 9, MPI_DOUBLE, 0, world);
    MPI_Bcast(answer.forces.data(), static_cast<int>(answer.forces.size()), MPI_DOUBLE, 0, world);
    size_vector = n_vector;
    energy = answer.energy;
    for (int i = 0; i < atom->nlocal; i++)
        for (int axis = 0; axis < 3; axis++)
            atom->f[i][axis] += answer.forces[3 * (atom->tag[i] - 1) + axis];
    v_init(vflag);
    if (vflag_global) {
        constexpr int place[6] = {0, 4, 8, 1, 2, 5}; // xx yy zz xy xz yz
        for (int i = 0; i < 6; i++)                  // the ranks are added up
            virial[i] = answer.virial[place[i]] / comm->nprocs;
    }
}

double FixComitia::compute_scalar()
{
    return energy;
}

double FixComitia::compute_vector(int i)
{
    return i < static_cast<int>(vector.size()) ? vector[i] : 0.0;
}

double FixComitia::memory_usage()
{
    return 8.0 * (gathered.size() + positions.size() + answer.forces.size());
}
