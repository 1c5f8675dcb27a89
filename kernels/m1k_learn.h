/*
 * m1k_learn.h - the launchers of what learning adds, as m1k.h has those of serving. All is in fp32.
 *
 * Nothing is added up by atomics: every sum is one chain, in an order that depends on its own element alone. A gradient
 * of a weight begins with what is there and goes on row by row, so that it does not matter how a batch is cut.
 */
#ifndef M1K_LEARN_H
#define M1K_LEARN_H

#include "m1k.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- learn_product.cu ---- */

typedef enum m1k_grouped
{
	M1K_UNGROUPED,
	M1K_GROUPED_ROWS,  /* rows of a and c are sorted by expert: each has its own weight */
	M1K_GROUPED_DEPTH, /* k runs over such rows: each expert has its own c */
} m1k_grouped;

/* c [m, n] = a b, or c + a b. a [i, k] lies at a[i * a_row + k * a_col]; one of a_row and a_col is 1. */
typedef struct m1k_multiply
{
	int m, n, k; /* of what is grouped, all experts' */
	const float *a;
	size_t a_row, a_col;
	const float *b; /* [k, n]; NULL: a weight's floats, */
	m1k_matrix weight;
	int transposed; /* of which b[k, j] is w[k, j], or w[j, k] */
	float *c;		/* [m, n] */
	int add;
	m1k_grouped grouped;
	int experts;
	const int *group;			/* [E + 1] */
	const void *const *weights; /* [E] in device memory, for M1K_GROUPED_ROWS: of weight's type and shape */
	float *const *sums;			/* [E] in device memory, for M1K_GROUPED_DEPTH: instead of c */
} m1k_multiply;

void m1k_learn_multiply(const m1k_multiply *p, cudaStream_t stream);

/* ---- learn_rows.cu ---- */

/* out = alpha x + beta y, or alpha x where y is NULL */
void m1k_learn_sum(const float *x, const float *y, float alpha, float beta, size_t n, float *out, cudaStream_t stream);
/* out = silu(z), or dy * silu'(z) */
void m1k_learn_silu(const float *z, const float *dy, size_t n, float *out, cudaStream_t stream);
/* A matrix as floats [rows, cols] */
void m1k_learn_widen(const m1k_matrix *m, float *out, cudaStream_t stream);
/* to[i] = from[rows[i]]; and to[rows[i]] += from[i], in the order of i */
void m1k_learn_gather(const float *from, const int *rows, int n, int width, float *to, cudaStream_t stream);
void m1k_learn_scatter(const float *from, const int *rows, int n, int width, float *to, cudaStream_t stream);

/* dx of y = RMS(x) weight; rho [n] is work memory. dweight, which is added to, may be NULL. */
typedef struct m1k_norm_back
{
	const float *x;
	const float *weight;
	float eps;
	int n, width;
	const float *dy;
	float *dx;
	float *dweight;
	float *rho;
} m1k_norm_back;

void m1k_learn_norm_back(const m1k_norm_back *p, cudaStream_t stream);
/* Of y = RMS(x) weight sigmoid(gate): dgate, and dy becomes the gradient by RMS(x) weight. */
void m1k_learn_gate_back(const m1k_norm_back *p, const float *gate, float *dy, float *dgate, cudaStream_t stream);

/* What logits say of targets; see m1b_predict. */
typedef struct m1k_predict
{
	float *logits; /* [n, vocab], exponentials afterwards */
	int n, vocab;
	float temperature;
	const int *targets;
	const uint64_t *masks; /* [masks, mask_words] */
	const int *mask_of;	   /* [n] of the masks; -1: all tokens are possible */
	int mask_words;
	float *logprob, *entropy, *sum; /* [n] */
} m1k_predict;

void m1k_learn_predict(const m1k_predict *p, cudaStream_t stream);
/* With sum as it was found; a row whose coefficient is 0 becomes zeros. */
void m1k_learn_predict_back(const m1k_predict *p, const float *coefficient, cudaStream_t stream);

#define M1K_SQUARE_SUMS 1024
/* *out = sum of squares; sums [M1K_SQUARE_SUMS] is work memory. */
void m1k_learn_squares(const float *x, size_t n, double *sums, double *out, cudaStream_t stream);

/* See m1b_adamw. */
typedef struct m1k_adamw
{
	float *value, *m, *v;
	const float *gradient;
	size_t n;
	float scale, rate, beta1, beta2, eps, correction1, correction2, decay;
} m1k_adamw;

void m1k_learn_adamw(const m1k_adamw *p, cudaStream_t stream);

/* ---- learn_moe.cu: by pairs of token and rank, and by places sorted by expert ---- */

typedef struct m1k_moe_learn
{
	int n, experts, top_k, d, width;
	const int *place; /* [n, top_k] */
	/* as m1b_moe_kept */
	const float *logits;
	const int *choice;
	const float *weight;
	float *kept_gate, *kept_up; /* [n, top_k, F] */
	/* rows of places */
	float *gate, *up; /* [pairs, F] and their gradients */
	float *hidden;	  /* [pairs, F] */
	float *back;	  /* [pairs, F] dy w2 */
	const float *dx;  /* [pairs, d] */
	float *kappa;	  /* [n, top_k] dy times the expert's output */
	/* of rows */
	const float *balance, *copies; /* [E] and [n], or NULL */
	float *dlogits;				   /* [n, E] */
	float *out;					   /* [n, d] */
} m1k_moe_learn;

/*
 * The experts of rows whose first choice is negative or, without replay, of all rows; and their weights. Then group,
 * tiles, place and token as m1k_route_tokens.
 */
void m1k_learn_route(const m1k_route *p, int replay, cudaStream_t stream);
/* kept_gate and kept_up from gate and up; hidden = silu(gate) up. */
void m1k_learn_hidden(const m1k_moe_learn *p, cudaStream_t stream);
/* hidden = silu(kept_gate) kept_up, by places. */
void m1k_learn_hidden_again(const m1k_moe_learn *p, cudaStream_t stream);
/* kappa, gate and up become gradients; back and hidden are weighted. */
void m1k_learn_hidden_back(const m1k_moe_learn *p, cudaStream_t stream);
/* out = sum of the pairs' dx, in the order of ranks; dlogits. */
void m1k_learn_combine(const m1k_moe_learn *p, cudaStream_t stream);

/* ---- learn_attention.cu: softmax attention over the rows of a batch ---- */

#define M1K_LEARN_TILE 32

/* Queries of one span. Keys are all rows of the parent, then the span's own up to the query. */
typedef struct m1k_query_tile
{
	int row, n;
	int span_row;
	int parent_row, parent_n;
} m1k_query_tile;

/* Keys of one span. Their queries are the rows from each key up to end_row: children follow their parent. */
typedef struct m1k_key_tile
{
	int row, n;
	int end_row;
} m1k_key_tile;

typedef struct m1k_attend
{
	const m1k_query_tile *query_tiles;
	const m1k_key_tile *key_tiles;
	int n_query_tiles, n_key_tiles;
	int n_rows; /* T */
	int heads, kv_heads, head_dim;
	const float *q, *k, *v; /* rotated */
	float *out;				/* [T, H, D] */
	float *lse;				/* [T, H] */
	/* backward */
	const float *dout;
	float *dq, *dk, *dv; /* by rotated q and k */
	float *along;		 /* [T, H] work memory: dout out */
} m1k_attend;

/* Turns the first 2 * half numbers of each head by the row's angles; sign -1: the other way. */
void m1k_learn_rotate(float *x, int n_rows, int heads, int head_dim, const float *rope, int half, float sign,
					  cudaStream_t stream);
void m1k_learn_attend(const m1k_attend *p, cudaStream_t stream);
void m1k_learn_attend_back(const m1k_attend *p, cudaStream_t stream);
/* Dynamic shared memory beyond 48 KB must be asked for once. */
cudaError_t m1k_learn_prepare(void);

/* ---- learn_lightning.cu ---- */

/* Rows that are gone through one after the other, and the states that they begin with and leave. */
typedef struct m1k_sweep_item
{
	int row, n;
	int from, n_from; /* states that are added up; none: zeros */
	int end;		  /* where the state is left; -1: nowhere */
	int keep;		  /* where it is kept after each M1K_SWEEP_KEPT rows but the last; -1: nowhere */
} m1k_sweep_item;

#define M1K_SWEEP_KEPT 512

/*
 * out_p = sum over the rows r up to p of e^(-l (p - r)) (q_p k_r) v_r: linear attention, and with other arrays in these
 * places the gradients of all of its three. reverse: p runs from the last row to the first. Row p of head h of an array
 * lies at (p * H + h) * unit.
 */
typedef struct m1k_sweep
{
	const m1k_sweep_item *items;
	int n_items;
	int reverse;
	const float *decay; /* [H] */
	const float *q, *k, *v;
	float *out;
	int q_unit, k_unit, v_unit, out_unit;
	const float *from_states; /* [states, H, D, D] */
	int from_transposed;
	float *to_states;
	int heads, head_dim;
} m1k_sweep;

void m1k_learn_sweep(const m1k_sweep *p, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
