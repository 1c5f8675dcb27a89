/*
 * cuda_learn.h - learning on one GPU: its work memory, of which each file has a part.
 *
 * It is one arena, made by the first reserve and again when a batch needs more; what depends on the spans is laid out
 * anew by each. What comes from the host is read before a call returns.
 */
#ifndef M1_BACKEND_CUDA_CUDA_LEARN_H
#define M1_BACKEND_CUDA_CUDA_LEARN_H

#include "backend/cuda/cuda_memory.h"
#include "backend/learning.h"
#include "kernels/m1k_learn.h"

typedef struct m1b_cuda m1b_cuda;

#define M1B_CUDA_TARGETS 256 /* whose distributions are looked at together */

/* Of operations on rows. */
typedef struct m1b_cuda_learn_rows
{
	float *rho;		 /* [max_tokens] */
	double *squares; /* [M1K_SQUARE_SUMS + 1] */
	int *rows;		 /* [T, or targets] numbers of rows or tokens */
	int *targets;	 /* [targets], as are the following */
	int *mask_of;
	float *said; /* [3, targets] log-probabilities, entropies, sums */
	float *coefficient;
	uint64_t *masks; /* [targets, mask_words] */
} m1b_cuda_learn_rows;

/* Of both attentions. */
typedef struct m1b_cuda_learn_spans
{
	float *rope;		   /* [T, rotary_dim / 2, 2] */
	int *segment_of;	   /* [T] */
	m1k_segment *segments; /* [spans] */
	m1k_query_tile *query_tiles;
	m1k_key_tile *key_tiles;
	float *along;			 /* [T, H] */
	m1k_sweep_item *forward; /* [spans] those without a parent, then the others */
	m1k_sweep_item *pieces;	 /* from one kept state to the next */
	m1k_sweep_item *reverse; /* as forward */
	float *gradients;		 /* [children, H, D, D] by the states that they begin with */
	int n_tiles, n_roots, n_children, n_pieces;
	int n_rows;
} m1b_cuda_learn_spans;

/* Of router and experts; rows of pairs by place. */
typedef struct m1b_cuda_learn_moe
{
	float *x, *dy, *dx;				  /* [pairs, d] */
	float *gate, *up, *hidden, *back; /* [pairs, F] */
	float *kappa;					  /* [pairs] */
	float *dlogits;					  /* [max_tokens, E] */
	float *balance;					  /* [E] */
	float *copies;					  /* [max_tokens] */
	void **pointers;				  /* [6, E] matrices and gradients of w1, w2, w3 */
} m1b_cuda_learn_moe;

typedef struct m1b_cuda_learn
{
	m1b_cuda_arena arena;
	void **widened; /* matrices that became float32 */
	size_t n_widened;
	m1b_cuda_learn_rows rows;
	m1b_cuda_learn_spans spans;
	m1b_cuda_learn_moe moe;
} m1b_cuda_learn;

extern const m1b_learning m1b_cuda_learning;

void m1b_cuda_learn_free(m1b_cuda *c);

/* c [m, n] = x W^T, or dy W: see m1k_multiply. */
void m1b_cuda_learn_linear(m1b_backend *b, const m1b_linear *p);
/* dw [rows, cols] += dy^T x */
void m1b_cuda_learn_weight_back(m1b_backend *b, const m1b_weight_back *p);
void m1b_cuda_learn_linear_back(m1b_backend *b, const m1b_linear_back *p);

/* cuda_learn_rows.c */
void m1b_cuda_learn_rows_want(const m1b_cuda *c, const m1b_spans *spans, m1b_cuda_learn_rows *w, m1b_cuda_buffers *all);
void m1b_cuda_learn_sum(m1b_backend *b, const m1b_sum *p);
void m1b_cuda_learn_silu(m1b_backend *b, const m1b_silu *p);
void m1b_cuda_learn_embed(m1b_backend *b, const m1b_embed *p);
void m1b_cuda_learn_embed_back(m1b_backend *b, const m1b_embed_back *p);
void m1b_cuda_learn_gather(m1b_backend *b, const m1b_rows *p);
void m1b_cuda_learn_scatter(m1b_backend *b, const m1b_rows *p);
void m1b_cuda_learn_norm_back(m1b_backend *b, const m1b_norm_back *p);
void m1b_cuda_learn_gate_back(m1b_backend *b, const m1b_gate_back *p);
void m1b_cuda_learn_predict(m1b_backend *b, const m1b_predict *p);
void m1b_cuda_learn_predict_back(m1b_backend *b, const m1b_predict_back *p);
double m1b_cuda_learn_squares(m1b_backend *b, const float *x, size_t n);
void m1b_cuda_learn_adamw(m1b_backend *b, const m1b_adamw *p);

/* cuda_learn_attention.c */
void m1b_cuda_learn_spans_want(const m1b_cuda *c, const m1b_spans *spans, m1b_cuda_learn_spans *w,
							   m1b_cuda_buffers *all);
/* Tells the device of the spans. */
m1_status m1b_cuda_learn_spans_set(m1b_cuda *c, const m1b_spans *spans, m1_error *err);
void m1b_cuda_learn_lightning(m1b_backend *b, const m1b_lightning_kept *p);
void m1b_cuda_learn_lightning_back(m1b_backend *b, const m1b_lightning_back *p);
void m1b_cuda_learn_attention(m1b_backend *b, const m1b_attention_kept *p);
void m1b_cuda_learn_attention_back(m1b_backend *b, const m1b_attention_back *p);

/* cuda_learn_moe.c */
void m1b_cuda_learn_moe_want(const m1b_cuda *c, m1b_cuda_learn_moe *w, m1b_cuda_buffers *all);
/* m1b_moe whose kept is to be filled. */
void m1b_cuda_learn_moe_forward(m1b_cuda *c, const m1b_moe *p);
void m1b_cuda_learn_moe_back(m1b_backend *b, const m1b_moe_back *p);
void m1b_cuda_learn_moe_load(m1b_backend *b, const m1b_moe_load *p);

#endif
