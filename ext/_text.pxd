from libc.stdint cimport int64_t, uint64_t


cdef extern from "decimal.h" nogil:
    int DECIMAL_LEAST, DECIMAL_MOST
    ctypedef struct decimal_power:
        uint64_t high, low

cdef extern from "rows.h" nogil:
    ctypedef enum rows_status:
        ROWS_END
        ROWS_FULL
        ROWS_WORD
        ROWS_SHORT
        ROWS_LONG
        ROWS_NO_NUMBERS
        ROWS_NO_STEP
        ROWS_DAMAGED_STEP
    int ROWS_UNKNOWN_STEP
    ctypedef struct text_rows:
        const char *at
        const char *end
        const char *word
        const char *word_end
        double *values
        int64_t *steps
        int64_t n_columns, n_room, n_rows, line, column, step
    rows_status rows_read(const decimal_power *powers, text_rows *rows)
