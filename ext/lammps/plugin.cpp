// SPDX-License-Identifier: GPL-2.0-or-later
// What LAMMPS calls when it loads the plugin: registers the styles, or says why this LAMMPS cannot have them.
#include "compute_comitia_sigma.h"
#include "fix_comitia.h"
#include "library.h"
#include "pair_comitia.h"

#include <cstdio>
#include <cstring>
#include <string>

#ifndef COMITIA_LAMMPS_VERSION
#include "version.h"
#endif

using namespace LAMMPS_NS;

namespace
{

// The record of the plugin interface (https://docs.lammps.org/Developer_plugins.html), whose header is not installed.
struct plugin_record {
    const char *version, *style, *name, *info, *author;
    void *creator;
    void *handle;
};
using register_function = void (*)(plugin_record *, void *);

template <class style> void *with_arguments(LAMMPS *lmp, int narg, char **arg)
{
    return new style(lmp, narg, arg);
}

void *pair_comitia(LAMMPS *lmp)
{
    return new PairComitia(lmp);
}

// The version that the plugin is built for, as 20250722.
int version_built_for()
{
#ifdef COMITIA_LAMMPS_VERSION
    return COMITIA_LAMMPS_VERSION;
#else
    int day = 0, year = 0;
    char month[4] = "";
    if (std::sscanf(LAMMPS_VERSION, "%d %3s%*[^0-9]%d", &day, month, &year) != 3) // "22 Jul 2025"
        return 0;
    const char *months = "JanFebMarAprMayJunJulAugSepOctNovDec", *found = std::strstr(months, month);
    return found == nullptr ? 0 : 10000 * year + 100 * (static_cast<int>(found - months) / 3 + 1) + day;
#endif
}

// Whether the plugin was built for this LAMMPS: classes of another version may be laid out otherwise.
bool fits(void *lmp)
{
    std::string problem;
    if (lammps_version(lmp) != version_built_for())
        problem = "LAMMPS version " + std::to_string(version_built_for()) + ", and this is version " +
                  std::to_string(lammps_version(lmp));
    else if (lammps_extract_setting(lmp, "tagint") != sizeof(tagint) ||
             lammps_extract_setting(lmp, "bigint") != sizeof(bigint) ||
             lammps_extract_setting(lmp, "imageint") != sizeof(imageint))
        problem = "a LAMMPS with other sizes of integers (SMALLBIG, BIGBIG)";
    if (!problem.empty() && lammps_extract_setting(lmp, "world_rank") == 0)
        lammps_error(lmp, 0, ("comitia: the plugin was built for " + problem + "; run: comitia lammps build").c_str());
    return problem.empty();
}

} // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *function)
{
    if (!fits(lmp))
        return;
    const auto add = reinterpret_cast<register_function>(function);
    const char *version = static_cast<LAMMPS *>(lmp)->version, *author = "The comitia developers";
    plugin_record styles[] = {
        {version, "pair",    "comitia",       "committees of machine-learned potentials", author,
         reinterpret_cast<void *>(pair_comitia),                        handle},
        {version, "compute", "comitia/sigma", "uncertainty of the energy",                author,
         reinterpret_cast<void *>(with_arguments<ComputeComitiaSigma>), handle},
        {version, "fix",     "comitia",       "forces from a running comitia serve",      author,
         reinterpret_cast<void *>(with_arguments<FixComitia>),          handle},
    };
    for (plugin_record &style : styles)
        add(&style, lmp);
}
