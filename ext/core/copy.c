/* What dispatch.c knows of one copy of the kernels. */
#include "dispatch.h"

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

const kernels COPY(kernels) = {
    .instructions = TEXT(COMITIA_INSTRUCTIONS),
    .n_lanes = LANES,
    .free_evaluator = evaluator_free,
    .evaluate_batch = evaluate,
#ifndef COMITIA_SINGLE /* energies, forces and virials alone are made in single precision */
    .combinations = evaluate_combinations,
    .tangent = evaluate_tangent,
    .design = evaluate_design,
    .members = linear_members,
    .finite = linear_finite,
    .free_members = member_evaluator_free,
    .forces_of_members = evaluate_members,
#endif
};
