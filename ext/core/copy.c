/* What dispatch.c knows of one copy of the kernels. */
#include "dispatch.h"

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

const kernels COPY(kernels) = {
    TEXT(COMITIA_INSTRUCTIONS),
    LANES,
    evaluator_free,
    evaluate,
#ifndef COMITIA_SINGLE /* energies, forces and virials alone are made in single precision */
    evaluate_combinations,
    evaluate_tangent,
    evaluate_design,
    linear_members,
    linear_finite,
    member_evaluator_free,
    evaluate_members,
#endif
};
