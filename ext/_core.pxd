from libc.stdint cimport int32_t, int64_t


cdef extern from "descriptor.h" nogil:
    enum:
        PADDING
    ctypedef struct harmonics_table:
        pass
    void harmonics_prepare(harmonics_table *table)

    ctypedef struct descriptor:
        int n_species, n_channels, l_max
        double cutoff
        int n_intervals, n_functions
        const double *spline
        const float *spline_single
        const int32_t *spline_start
        int n_stride
        const int32_t *radial_offset
        const int32_t *n_used
        const int32_t *channel_n
        const int32_t *channel_offset
        const int32_t *channel_species
        size_t n_density
        const int32_t *order1_place
        int n_dense
        const int32_t *dense_n
        const int32_t *dense_place
        const double *contraction
        int n_features, n_components
        const int32_t *feature
        const double *scale
        const int32_t *component_source
        int n_rows
        const int32_t *row_place
        const int32_t *row_component
        const int32_t *component_function
        const int32_t *component_lm
        const int32_t *component_channel
        int n_order0
        int n_order1
        const int32_t *order1_base
        int n_order2
        const int32_t *order2_l
        const int32_t *order2_first
        const int32_t *order2_start
        const int32_t *order2_second
        const int32_t *scaled_start
        const int32_t *scaled_by
        int n_runs, n_products, n_shared, n_terms
        const int32_t *run_l
        const int32_t *run_coupling
        const int32_t *run_start
        const double *coupling
        const int32_t *product_first
        const int32_t *product_second
        const int32_t *product_base
        const int32_t *run_of
        const int32_t *order3_start
        const int32_t *order3_third
        const int32_t *order4_start
        const int32_t *order4_other
        const int32_t *mirrored_start
        const int32_t *mirrored_other
        const int32_t *mirrored_place
        const double *core_inner
        const double *core_outer
        const double *nuclear_charge
        harmonics_table harmonics


cdef extern from "neighbours.h" nogil:
    ctypedef struct neighbour_list:
        size_t n_atoms, n_pairs, offending_atom, n_allocations
        int64_t *start
        int32_t *neighbour
        int32_t *shift
        double cutoff, skin
        int n_threads
    void neighbour_list_init(neighbour_list *list, double cutoff, double skin)
    void neighbour_list_free(neighbour_list *list)
    int neighbour_list_update(neighbour_list *list, size_t n_atoms, const double *positions, const double *cell,
                              const int *pbc)
    const char *neighbour_error(int code)
    int NEIGHBOURS_ERROR_MEMORY, NEIGHBOURS_ERROR_NONFINITE


cdef extern from "density.h" nogil:
    ctypedef struct structure:
        size_t n_atoms
        const int32_t *species
        const double *positions
        const double *cell
        const neighbour_list *list


cdef extern from "linear.h" nogil:
    void linear_members(size_t n_structures, size_t n_members, size_t width, const double *sums,
                        const double *deviations, const double *mean, double *members)
    int linear_finite(size_t n, const double *values)


cdef extern from "dispatch.h" nogil:
    ctypedef struct kernels:
        const char *instructions
        int n_lanes
    const kernels *kernels_available(int index)
    const kernels *kernels_in_use()
    int kernels_use(const char *instructions)
    int INSTRUCTIONS_MISSING


cdef extern from "evaluate.h" nogil:
    ctypedef struct evaluator:
        size_t n_allocations
    ctypedef struct evaluation:
        const double *weights
        const double *adjoint
        double *atomic_energies
        double *forces
        double *virials
        double *atomic_virials
        double *sums
        double *features
        size_t n_members
        const double *deviations
        double *atomic_members
        size_t keep
    ctypedef struct combination:
        size_t n_sets
        const double *weights
        const double *core
        double *atomic_energies
        double *forces
        double *virials
    void evaluator_free(evaluator *e)
    int evaluate(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures, int n_threads,
                 const evaluation *what)
    int evaluate_combinations(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures,
                              int n_threads, const combination *what)
    int evaluate_tangent(const descriptor *d, size_t n_structures, const structure *structures, int n_threads,
                         const double *directions, const double *strains, double *sums)
    int evaluate_design(const descriptor *d, const structure *s, double *features, double *forces, double *virial)


cdef extern from "members.h" nogil:
    ctypedef struct member_evaluator:
        size_t n_allocations
    ctypedef struct member_program:
        int n_channels, n_products, n_terms
        const int32_t *channel_base
        const int32_t *dot_start
        const int32_t *dot_other
        const int32_t *product_l
        const int32_t *product_first
        const int32_t *product_second
        const int32_t *product_base
        const int32_t *product_coupling
        const double *coupling
        const int32_t *function_start
        const int32_t *function
        const int32_t *function_base
        const int32_t *slot_start
        const int32_t *source_start
        const int32_t *source_component
        const double *source_factor
        int most_slots
    ctypedef struct member_evaluation:
        size_t n_columns
        const double *weights
        const double *core
        const double *first
        double *forces
        double *virials
        double *atomic_energies
        double *sums
    void member_evaluator_free(member_evaluator *e)
    int evaluate_members(member_evaluator *e, const descriptor *d, const member_program *program, size_t n_structures,
                         const structure *structures, int n_threads, const member_evaluation *what)


cdef extern from "incremental.h" nogil:
    int MOST_MOVED, INCREMENTAL_CLOSED
    ctypedef struct contributions:
        size_t n_centres
    ctypedef struct contribution_memory:
        evaluator evaluator
        size_t n_allocations
    ctypedef struct contribution_store:
        size_t n_allocations
    ctypedef struct incremental_base:
        int filled, n_moved
        double *positions
        contributions trial
    ctypedef struct incremental_difference:
        int n
    ctypedef struct incremental_scratch:
        contribution_memory memory
        contribution_store store
        size_t n_allocations
    void incremental_base_free(incremental_base *b)
    void incremental_scratch_free(incremental_scratch *s)
    int incremental_base_prepare(incremental_base *b, size_t n_atoms, const int *pbc, size_t n_sums)
    void incremental_keep(incremental_base *b, incremental_scratch *s, const double *positions, const double *cell,
                          const double *energies, const double *forces, const double *virial, const double *sums)
    int incremental_compare(incremental_base *b, const incremental_scratch *s, const double *positions,
                            const double *cell, incremental_difference *difference)
    int incremental_evaluate(incremental_base *b, incremental_scratch *s, const descriptor *d, const int32_t *species,
                             const double *weights, const double *positions, const incremental_difference *difference,
                             int n_threads)
    void incremental_reject(incremental_base *b)
    void incremental_read(const incremental_base *b, const incremental_scratch *s, double *energies, double *forces,
                          double *virial, double *sums)
