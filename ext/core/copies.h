/* Kernels are compiled once per instruction set. Every external name of such a copy ends in that of the set, as in
 * evaluate_avx2, so that the copies live in one library; dispatch.c gives the plain names their meaning.
 * A new external function of a file that is compiled so goes into this list.                                  */
#ifndef COMITIA_COPIES_H
#define COMITIA_COPIES_H

#ifdef COMITIA_INSTRUCTIONS

#define COPY_OF(name, instructions) name##_##instructions
#define COPY_IN(name, instructions) COPY_OF(name, instructions)
#define COPY(name) COPY_IN(name, COMITIA_INSTRUCTIONS)

#define reserve COPY(reserve)
#define blocks_free COPY(blocks_free)
#define blocks_arrange COPY(blocks_arrange)
#define parts_free COPY(parts_free)
#define parts_cut COPY(parts_cut)
#define part_begin COPY(part_begin)
#define parts_add_up COPY(parts_add_up)
#define environment_free COPY(environment_free)
#define environment_size COPY(environment_size)
#define environment_gather COPY(environment_gather)
#define environment_read COPY(environment_read)
#define environment_scatter COPY(environment_scatter)
#define kept_free COPY(kept_free)
#define kept_block COPY(kept_block)
#define quadratic_size COPY(quadratic_size)
#define quadratic_weights COPY(quadratic_weights)
#define quadratic_energy COPY(quadratic_energy)
#define quadratic_products COPY(quadratic_products)
#define quadratic_features COPY(quadratic_features)
#define density_expand COPY(density_expand)
#define density_reverse COPY(density_reverse)
#define density_reverse_two COPY(density_reverse_two)
#define density_tangent COPY(density_tangent)
#define correlations_load COPY(correlations_load)
#define correlations_store COPY(correlations_store)
#define correlations_weights COPY(correlations_weights)
#define correlations_evaluate COPY(correlations_evaluate)
#define correlations_evaluate_two COPY(correlations_evaluate_two)
#define correlations_reverse COPY(correlations_reverse)
#define correlations_couple COPY(correlations_couple)
#define features_jacobian COPY(features_jacobian)
#define worker_free COPY(worker_free)
#define worker_prepare COPY(worker_prepare)
#define evaluator_free COPY(evaluator_free)
#define evaluate COPY(evaluate)
#define evaluate_combinations COPY(evaluate_combinations)
#define combination_workers_free COPY(combination_workers_free)
#define evaluate_tangent COPY(evaluate_tangent)
#define evaluate_design COPY(evaluate_design)
#define linear_members COPY(linear_members)
#define linear_finite COPY(linear_finite)
#define member_evaluator_free COPY(member_evaluator_free)
#define evaluate_members COPY(evaluate_members)

#endif

#endif
