/* Rows of numbers from text: one row a line, columns apart by blanks, `#` begins a comment. */
#ifndef COMITIA_ROWS_H
#define COMITIA_ROWS_H

#include "decimal.h"

typedef enum {
    ROWS_END,         /* all lines were read */
    ROWS_FULL,        /* no room is left for the row at `at` */
    ROWS_WORD,        /* `word` must be read by somebody else, who goes on after it */
    ROWS_SHORT,       /* line `line` has only `column` numbers */
    ROWS_LONG,        /* line `line` has more than `n_columns`: the next is at `at` */
    ROWS_NO_NUMBERS,  /* a step is announced in line `line`, and the one before had no numbers */
    ROWS_NO_STEP,     /* no step was announced for the numbers in line `line` */
    ROWS_DAMAGED_STEP /* what line `line` announces is no step */
} rows_status;

enum { ROWS_UNKNOWN_STEP = -1 };

/* Where the reading is, and where the numbers go. */
typedef struct {
    const char *at, *end;        /* whole lines, the last byte is an end of line */
    const char *word, *word_end; /* after ROWS_WORD */
    double *values;              /* [n_room][n_columns] */
    int64_t *steps;              /* [n_room], from comments `Step: N` before each row; or NULL */
    int64_t n_columns, n_room;
    int64_t n_rows, line; /* rows and lines that were read; lines count from 1 */
    int64_t column, step; /* numbers read in this line, step announced last */
} text_rows;

/* Read on until something stops it. */
rows_status rows_read(const decimal_power *powers, text_rows *rows);

#endif
