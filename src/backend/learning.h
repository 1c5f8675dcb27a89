/*
 * learning.h - the operations that a device offers for learning, beside those of backend.h: forward operations that
 * keep what their gradients need, the gradients of all forward operations, and the optimizer.
 *
 * Called as those are: from one thread, with params structs, on float32 arrays in device memory. Nothing allocates but
 * reserve and take.
 *
 * A gradient of a weight is added to; every element is one chain of additions in the order of the rows. So the sum over
 * a batch has the same bits however the batch is cut into calls and whatever number of threads works on it. Gradients
 * of activations are written, and a row's depends on that row and its sequence alone. Where nothing flows, zeros come
 * out that are exact.
 *
 * An adapter learns as weights do: where the forward operation has one run over all of its rows, gradients go through
 * what that adds, and are those of its a, b and whole matrices.
 *
 * Shapes: T rows of the batch, all others as in backend.h.
 */
#ifndef M1_BACKEND_LEARNING_H
#define M1_BACKEND_LEARNING_H

#include "backend/backend.h"

/*
 * Consecutive tokens of one sequence. Sequences that begin alike may share a span, from whose end their own go on:
 * these children follow it at once, and have no children themselves.
 */
typedef struct m1b_span
{
	int row;	/* first of its rows; spans are in the order of their rows, which are all of the batch's */
	int n_rows; /* at least 1 */
	int parent; /* index of the span that it goes on from; -1: none */
	int start;	/* position of its first token: 0, or the parent's n_rows */
	bool is_parent;
	int state; /* first of its kept states, of m1b_span_states() */
} m1b_span;

typedef struct m1b_spans
{
	const m1b_span *at;
	int n;
	int n_rows;	  /* T */
	int n_states; /* of all spans together */
} m1b_spans;

/* Lightning states are kept after so many tokens of a span; what lies between is made again. */
#define M1B_KEPT_STATE_TOKENS 512

/* How many states of a span are kept: one at each multiple inside it, and its last one if others go on from there. */
static inline int
m1b_span_states(int n_rows, bool is_parent)
{
	return (n_rows - 1) / M1B_KEPT_STATE_TOKENS + (is_parent ? 1 : 0);
}

/* out = x; out may be x. With y: out = alpha * x + beta * y */
typedef struct m1b_sum
{
	const float *x;
	const float *y; /* NULL: out = alpha * x */
	float alpha, beta;
	size_t n;
	float *out; /* may be x or y */
} m1b_sum;

/* dx of y = x W^T for any type of weights; those that are quantized count as what their numbers stand for. */
typedef struct m1b_linear_back
{
	const m1b_matrix *weight; /* [rows, cols] */
	const float *dy;		  /* [n, rows] */
	int n;
	bool add;  /* to dx, which is otherwise written */
	float *dx; /* [n, cols] */
} m1b_linear_back;

/* dW += dy^T x, in the order of the rows of x */
typedef struct m1b_weight_back
{
	const float *dy; /* [n, rows] */
	const float *x;	 /* [n, cols] */
	int n, rows, cols;
	float *dw; /* [rows, cols] */
} m1b_weight_back;

/* Where the gradients of an m1b_adapted go, which are added to, in the order of the rows. */
typedef struct m1b_adapted_gradient
{
	float *a;	  /* [rank, cols] */
	float *b;	  /* [rank, rows] */
	float *whole; /* [rows, cols]; NULL where nothing is replaced */
} m1b_adapted_gradient;

/* Of what an adapter adds to y = x W^T, scale (x a^T) b. That of a whole matrix is m1b_linear_back's. */
typedef struct m1b_adapted_back
{
	const m1b_adapted *adapted;
	const float *x;	 /* [n, cols] */
	const float *dy; /* [n, rows] */
	int n, rows, cols;
	float *dx; /* [n, cols], added to */
	const m1b_adapted_gradient *gradient;
} m1b_adapted_back;

/* y = RMS(x) * weight */
typedef struct m1b_norm_back
{
	const float *x;		 /* [n, width] */
	const float *weight; /* [width] */
	float eps;
	int n, width;
	const float *dy; /* [n, width] */
	float *dx;		 /* [n, width]; not dy */
	float *dweight;	 /* [width], added to; may be NULL */
} m1b_norm_back;

/* y = RMS(x) * weight * sigmoid(gate) */
typedef struct m1b_gate_back
{
	const float *x;		 /* [n, width] */
	const float *gate;	 /* [n, width] */
	const float *weight; /* [width] */
	float eps;
	int n, width;
	float *dy;		/* [n, width]; overwritten */
	float *dx;		/* [n, width]; not dy */
	float *dgate;	/* [n, width] */
	float *dweight; /* [width], added to; may be NULL */
} m1b_gate_back;

/* What a gate leaves to do, once dgate is there and dy is what comes to the norm. */
static inline m1b_norm_back
m1b_norm_of_gate(const m1b_gate_back *p)
{
	return (m1b_norm_back){.x = p->x,
						   .weight = p->weight,
						   .eps = p->eps,
						   .n = p->n,
						   .width = p->width,
						   .dy = p->dy,
						   .dx = p->dx,
						   .dweight = p->dweight};
}

/* out = silu(z); with dy, out = dy * silu'(z), and out may be dy */
typedef struct m1b_silu
{
	const float *z;
	const float *dy;
	size_t n;
	float *out;
} m1b_silu;

/* Linear attention as m1b_lightning, from zero or from where the parent ended. */
typedef struct m1b_lightning_kept
{
	const m1b_spans *spans;
	const float *decay; /* [H] lambda */
	const float *qkv;	/* [T, H, 3, D] */
	float *out;			/* [T, H, D] */
	float *states;		/* [n_states, H, D, D] kept */
} m1b_lightning_kept;

typedef struct m1b_lightning_back
{
	const m1b_lightning_kept *forward; /* its out is not read */
	const float *dout;				   /* [T, H, D] */
	float *dqkv;					   /* [T, H, 3, D] */
} m1b_lightning_back;

/* Softmax attention as m1b_attention, over keys and values of the batch itself. */
typedef struct m1b_attention_kept
{
	const m1b_spans *spans;
	float *q;	/* [T, H, D]; rotated in place */
	float *k;	/* [T, KV, D]; rotated in place, and rounded to what KV pages hold, as is v: gradients are of that */
	float *v;	/* [T, KV, D] */
	float *out; /* [T, H, D] */
	float *lse; /* [T, H] logarithm of the sum of exponentials of scores */
} m1b_attention_kept;

typedef struct m1b_attention_back
{
	const m1b_attention_kept *forward; /* with q, k and v as it has left them */
	const float *dout;				   /* [T, H, D] */
	float *dq, *dk, *dv;			   /* as q, k, v were before they were rotated */
} m1b_attention_back;

/* The gradients of m1b_moe, whose kept is filled. */
typedef struct m1b_moe_back
{
	const m1b_moe *forward;
	const float *dy; /* [n, d] */
	/*
	 * [E] what the auxiliary loss adds to the gradient of each expert's probability, for a row that counts once;
	 * copies [n] how often each does. Both on the host. NULL: there is no such loss.
	 */
	const float *balance;
	const float *copies;
	float *dx;									 /* [n, d] */
	float *drouter;								 /* [E, d], added to, as are the others; may be NULL */
	float *const *dw1, *const *dw2, *const *dw3; /* [E]; NULL: not wanted */
	/* of what the forward pass's one run makes of each matrix, the experts' as arrays of E; NULL where it is nothing */
	const m1b_adapted_gradient *adapted[M1B_MOE_MATRICES];
} m1b_moe_back;

/*
 * Adds up how the rows' probabilities and choices are spread, in the order of the rows: the auxiliary loss is made of
 * that. And how many rows' choices are not what the router would choose now, which replayed ones may be.
 */
typedef struct m1b_moe_load
{
	const m1b_moe_kept *kept;
	const float *copies; /* [n] host: how often each row counts */
	int n, experts, top_k;
	double *chosen;		 /* [E] host, added to: choices */
	double *probability; /* [E] host, added to: full softmax; may be NULL */
	int64_t *differ;	 /* host, added to */
} m1b_moe_load;

/* dtable[tokens[t]] += dx[t] */
typedef struct m1b_embed_back
{
	const int32_t *tokens; /* [n] host */
	const float *dx;	   /* [n, d] */
	int n, width;
	float *dtable; /* [vocab, d] */
} m1b_embed_back;

/* The distribution over the vocabulary of each row at a temperature, and what it says of a target. */
typedef struct m1b_predict
{
	float *logits; /* [n, vocab]; becomes exponentials, which m1b_predict_back reads */
	int n, vocab;
	float temperature;
	const int32_t *targets; /* [n] host */
	/*
	 * [n] host: bits of the tokens that are possible, the target among them; all are in a row that has NULL. NULL: in
	 * every row.
	 */
	const uint64_t *const *allowed;
	float *logprob; /* [n] host */
	float *entropy; /* [n] host */
	float *sum;		/* [n] host: what the exponentials add up to */
} m1b_predict;

/* The gradient of L = - sum_t coefficient_t logprob_t by the logits, in their place. */
typedef struct m1b_predict_back
{
	const m1b_predict *forward;
	const float *coefficient; /* [n] host; a row of 0 becomes zeros */
} m1b_predict_back;

/* Rows of an array, to or from rows that lie one after the other. */
typedef struct m1b_rows
{
	const int *rows; /* [n] host */
	int n, width;
	const float *from;
	float *to;
} m1b_rows;

/* One step of AdamW on n parameters; gradients are multiplied by scale. */
typedef struct m1b_adamw
{
	float *value, *m, *v;
	const float *gradient;
	size_t n;
	float scale;
	float rate, beta1, beta2, eps;
	float correction1, correction2; /* 1 - beta^step */
	float decay;					/* rate * weight decay */
} m1b_adamw;

struct m1b_learning
{
	/* n floats of device memory, zeroed; NULL when there is none. Freed by give. */
	float *(*take)(m1b_backend *b, size_t n);
	void (*give)(m1b_backend *b, float *memory); /* may be NULL */
	void (*zero)(m1b_backend *b, float *x, size_t n);
	/* Copies from the host, whose memory may change as soon as this returns. m1b_ops.read is the way back. */
	void (*put)(m1b_backend *b, void *to, const void *from, size_t bytes);
	/*
	 * The matrix, which is not quantized, becomes float32; its numbers are returned, row by row, and serving reads them
	 * as they are from then on. NULL when there is no memory for them. Freed by close.
	 */
	float *(*widen)(m1b_backend *b, m1b_matrix *m);
	/* Bytes that the device has left beside weights, KV pages and what was taken. */
	size_t (*memory)(m1b_backend *b);

	/* Work memory for batches of these spans, until the next call or close. Before any operation but those above. */
	m1_status (*reserve)(m1b_backend *b, const m1b_spans *spans, m1_error *err);
	/* What reserve takes, in bytes. */
	size_t (*reserve_bytes)(const m1b_backend *b, const m1b_spans *spans);

	void (*embed)(m1b_backend *b, const m1b_embed *p);	 /* m1b_ops.embed, of tokens [n] of the host */
	void (*linear)(m1b_backend *b, const m1b_linear *p); /* m1b_ops.linear, exact for any number of rows */
	void (*sum)(m1b_backend *b, const m1b_sum *p);
	void (*silu)(m1b_backend *b, const m1b_silu *p);
	void (*gather)(m1b_backend *b, const m1b_rows *p);	/* to[i] = from[rows[i]] */
	void (*scatter)(m1b_backend *b, const m1b_rows *p); /* to[rows[i]] += from[i], in order of i */
	void (*lightning)(m1b_backend *b, const m1b_lightning_kept *p);
	void (*attention)(m1b_backend *b, const m1b_attention_kept *p);
	void (*moe_load)(m1b_backend *b, const m1b_moe_load *p);
	void (*predict)(m1b_backend *b, const m1b_predict *p);

	void (*linear_back)(m1b_backend *b, const m1b_linear_back *p);
	void (*weight_back)(m1b_backend *b, const m1b_weight_back *p);
	void (*adapted_back)(m1b_backend *b, const m1b_adapted_back *p); /* after prepare_adapters; NULL as that */
	void (*norm_back)(m1b_backend *b, const m1b_norm_back *p);
	void (*gate_back)(m1b_backend *b, const m1b_gate_back *p);
	void (*lightning_back)(m1b_backend *b, const m1b_lightning_back *p);
	void (*attention_back)(m1b_backend *b, const m1b_attention_back *p);
	void (*moe_back)(m1b_backend *b, const m1b_moe_back *p);
	void (*embed_back)(m1b_backend *b, const m1b_embed_back *p);
	void (*predict_back)(m1b_backend *b, const m1b_predict_back *p);

	bool keeps_choices; /* m1b_moe.choice is filled while serving */

	double (*sum_of_squares)(m1b_backend *b, const float *x, size_t n); /* the same bits with any number of threads */
	void (*adamw)(m1b_backend *b, const m1b_adamw *p);
};

#endif
