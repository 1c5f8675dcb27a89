/*
 * micro.h - a batch of sequences in its canonical order, and cut into what is computed together.
 *
 * The order depends on the contents of the sequences alone, so that sums in that order do not depend on how the caller
 * has them. A unit is a sequence, or several that share their beginning; it is never cut. A micro-batch is some units,
 * as rows of arrays.
 */
#ifndef M1_TRAIN_MICRO_H
#define M1_TRAIN_MICRO_H

#include "backend/learning.h"
#include "base/status.h"
#include "model/config.h"
#include "train/losses.h"

typedef struct m1_member
{
	const m1_sequence *sequence;
	size_t experts; /* that a token takes, in all layers */
	size_t words;	/* of the bits of all tokens */
} m1_member;

typedef struct m1_unit
{
	const m1_member *members; /* in order */
	int n;
	int shared; /* tokens that all of them begin with, and that are computed once; 0 where n is 1 */
	int rows;
} m1_unit;

typedef struct m1_ordered
{
	m1_member *members; /* all sequences */
	m1_unit *units;		/* in order */
	int n_units;
	int most_rows; /* of a unit */
	int64_t tokens;
	int64_t rows;
	int64_t learned; /* tokens of completions */
	int completions; /* sequences that have such a token */
} m1_ordered;

/* Checks the sequences against model and objective, and puts them in order. m1_ordered_free is safe after a failure. */
m1_status m1_order(const m1_sequence *sequences, int n, const m1_objective *objective, const m1_config *config,
				   int max_context, m1_ordered *out, m1_error *err);
void m1_ordered_free(m1_ordered *o);

/* A token that is predicted, and the row that does. */
typedef struct m1_target
{
	const m1_sequence *sequence;
	int token; /* its place in the sequence */
	int row;
	double scale; /* of its loss */
} m1_target;

/* The sequence that a row was made of first, and its token there. */
typedef struct m1_row_source
{
	const m1_sequence *sequence;
	int token;
} m1_row_source;

typedef struct m1_micro
{
	m1b_spans spans;
	m1b_span *span_list;
	int32_t *tokens;	   /* [rows] */
	float *copies;		   /* [rows] sequences that have this row */
	m1_row_source *source; /* [rows] */
	m1_target *targets;
	int n_targets;
} m1_micro;

/* How many units from `first` on have at most `rows` rows together; at least one. */
int m1_micro_units(const m1_ordered *o, int first, int rows);
m1_status m1_micro_build(const m1_ordered *o, int first, int n_units, const m1_objective *objective, m1_micro *out,
						 m1_error *err);
void m1_micro_free(m1_micro *m);

#endif
