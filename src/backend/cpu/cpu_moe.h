/*
 * cpu_moe.h - the work memory of experts, and how pairs of token and rank are grouped by expert: what the forward pass
 * and the gradients share.
 */
#ifndef M1_BACKEND_CPU_CPU_MOE_H
#define M1_BACKEND_CPU_CPU_MOE_H

#include "backend/cpu/cpu_internal.h"

typedef struct m1b_moe_work
{
	float *scores;		 /* [T, E] router logits */
	int *choice;		 /* [T, top_k] expert of each pair */
	float *weight;		 /* [T, top_k] */
	int *group;			 /* [E + 1] first place of each expert in order */
	int *order;			 /* [pairs] pairs sorted by expert */
	const float **x;	 /* [pairs] rows of x, then of hidden, in sorted order */
	void **q;			 /* [pairs] the same quantized */
	const m1b_run **run; /* [pairs] in sorted order: the run that a pair's token is in, or NULL */
	float **hidden_rows; /* [pairs] */
	float **up_rows;	 /* [pairs] */
	float **out_rows;	 /* [pairs] */
	float *hidden;		 /* [pairs, F] w1 x, then silu(w1 x) * w3 x */
	float *up;			 /* [pairs, F] w3 x */
	float *out;			 /* [pairs, d] */
	int *active;		 /* experts with at least one pair */
	int n_active;
} m1b_moe_work;

/* Sorts the pairs of w->choice by expert, in token order within an expert: order, group and active. */
void m1b_cpu_moe_group(m1b_moe_work *w, int pairs, int experts);

#endif
