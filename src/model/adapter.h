/*
 * adapter.h - a low-rank adapter (LoRA): for some weights W [rows, cols] of a model, W' = W + scale B A with A
 * [rank, cols] and B [rows, rank], or a W' that was trained as a whole, as the router is.
 *
 * Everything is fp32 in host memory, which the CPU backend uses in place: a trainer may change it between steps. The
 * file format is PEFT's: see adapter_files.h. One thread at a time; the step thread reads while it computes.
 */
#ifndef M1_MODEL_ADAPTER_H
#define M1_MODEL_ADAPTER_H

#include "backend/backend.h"
#include "model/config.h"
#include "model/roles.h"

#define M1_ADAPTER_MAX_RANK 1024

typedef struct m1_adapter m1_adapter;

/* What becomes of one weight. */
typedef struct m1_adapter_shape
{
	int rank;	 /* 0: nothing is added */
	float scale; /* alpha / rank; or alpha / sqrt(rank), rank-stabilized */
	bool whole;	 /* it is replaced */
} m1_adapter_shape;

/* One weight that the adapter changes. */
typedef struct m1_adapter_target
{
	m1_role role;
	int layer, expert; /* 0 where there are none */
	int rows, cols;
	int rank;
	float scale;
	float *a;	  /* [rank, cols]; NULL with rank 0 */
	float *b;	  /* [rank, rows]: B transposed */
	float *whole; /* [rows, cols], or NULL */
	m1b_matrix whole_matrix;
} m1_adapter_target;

/* Decides on one weight of those that an adapter may change; they are asked for in the order of files. */
typedef m1_status (*m1_adapter_rule)(void *context, m1_role role, int layer, int expert, m1_adapter_shape *shape,
									 m1_error *err);

/* An adapter whose numbers are all 0. The error is the rule's, or memory's. */
m1_status m1_adapter_build(const m1_config *config, m1_adapter_rule rule, void *context, m1_adapter **out,
						   m1_error *err);
void m1_adapter_free(m1_adapter *a);
/* The same as it is now. NULL when memory ran out. */
m1_adapter *m1_adapter_copy(const m1_adapter *a, const m1_config *config);

/* Whether an adapter may change weights of this role at all; and replace them. */
bool m1_adapter_may_change(m1_role role);
bool m1_adapter_may_replace(m1_role role);

/* Its weights, in the order of files. Sizes do not change; numbers may. */
m1_adapter_target *m1_adapter_targets(const m1_adapter *a, int *n);
/* All of their numbers, one target's after the other's. */
float *m1_adapter_numbers(const m1_adapter *a, size_t *n);
/* Bytes of all their numbers. */
size_t m1_adapter_bytes(const m1_adapter *a);
/* The largest rank; 0 where everything is replaced as a whole. */
int m1_adapter_max_rank(const m1_adapter *a);

/*
 * What it makes of the weight of that role in a layer (0 for the head's): of an expert's, the first of E. NULL for
 * nothing.
 */
const m1b_adapted *m1_adapter_change(const m1_adapter *a, m1_role role, int layer);
/* The one target that changes this weight, or NULL. */
const m1_adapter_target *m1_adapter_find(const m1_adapter *a, m1_role role, int layer, int expert);

/* Of a weight's rows first .. first + n, as floats in `to` [n, cols]: what the adapter makes of them. */
void m1_adapter_apply(const m1_adapter_target *t, int first, int n, float *to);

#endif
