/*
 * m1k.h - the CUDA kernels' launchers: plain C, called by the CUDA backend only.
 *
 * Every launcher puts its kernels on the given stream and returns at once; the
 * caller looks at cudaGetLastError(). None allocates or synchronises, so all may be
 * recorded into a graph: what changes from step to step lies in device memory.
 *
 * The same sources also compile as ordinary C++ against test/emulation, where a
 * block's threads are fibers: that is how they are tested without a GPU.
 *
 * Shapes as in backend.h: T tokens, d hidden, H heads, KV key/value heads, D head
 * size, E experts, F expert width. All arrays are row-major in device memory.
 */
#ifndef M1K_H
#define M1K_H

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define M1K_PAGE_TOKENS 64	 /* tokens of one KV page, and the key block of attention */
#define M1K_MAX_EXPERTS 128	 /* a product's matrices travel as kernel arguments */
#define M1K_MAX_GROUP 16	 /* query heads per kv head */
#define M1K_MAX_HEAD_DIM 128 /* D, a multiple of 8 */
#define M1K_RANGE_PAGES 4	 /* of a range of a decoding token's keys, at least: fewer would not be worth merging */
#define M1K_MAX_SPLITS 128	 /* ranges of a decoding token's keys */
#define M1K_MAX_WIDTH 12256	 /* floats of a row that a norm keeps in shared memory: 48 KB, with what a sum needs */
#define M1K_MAX_BATCH 65535	 /* sequences of a step: a grid has no more blocks in the directions that they are in */
#define M1K_FEW_ROWS 8		 /* up to so many rows, products are memory-bound and go without tensor cores */
#define M1K_ROW_ALIGNMENT 16 /* bytes: rows of weights start at multiples of it */

/*
 * Layouts of a row of weights. F32, F16, BF16, Q4_K and Q5_K are stored as in files. The others are split into
 * planes, so that loads are aligned, with n = cols:
 *   Q8_0  n bytes of quants, then n / 32 half scales
 *   Q4_0  n / 2 bytes of nibbles, then n / 32 half scales
 *   Q6_K  n / 2 bytes of low bits, n / 4 of high bits, n / 16 scales, n / 256 half factors
 *   F8_E4M3  n bytes, then n / 128 fp32 scales
 */
typedef enum m1k_type
{
	M1K_F32,
	M1K_F16,
	M1K_BF16,
	M1K_Q8_0,
	M1K_Q4_0,
	M1K_Q4_K,
	M1K_Q5_K,
	M1K_Q6_K,
	M1K_F8_E4M3,
} m1k_type;

typedef struct m1k_matrix
{
	const void *data;
	m1k_type type;
	int rows;
	int cols;		  /* a multiple of 8 */
	size_t row_bytes; /* a multiple of M1K_ROW_ALIGNMENT */
} m1k_matrix;

/* ---- rows.cu: operations on one row at a time ---- */

/* out[t] = row tokens[t] of table */
void m1k_embed(const m1k_matrix *table, const int *tokens, int n, float *out, cudaStream_t stream);

/* Rows row0 ... of a matrix in bf16: out [rows, cols] */
void m1k_expand(const m1k_matrix *m, int row0, int rows, uint16_t *out, cudaStream_t stream);

/* sum = alpha residual + beta branch (branch NULL: sum = residual); out = RMS(sum) weight. See m1b_norm. */
typedef struct m1k_norm
{
	const float *residual;
	const float *branch;
	float alpha, beta;
	float *keep_sum; /* or NULL */
	const float *weight;
	float eps;
	int n, width;
	float *out;
	uint16_t *out_bf16; /* or NULL: the same, rounded */
} m1k_norm;

void m1k_rms_norm(const m1k_norm *p, cudaStream_t stream);

/* out = RMS(x) weight sigmoid(gate); out may be x */
typedef struct m1k_gate
{
	const float *x;
	const float *gate;
	const float *weight;
	float eps;
	int n, width;
	float *out;
	uint16_t *out_bf16;	  /* or NULL */
	const float *squares; /* [n] of whole rows, of which x is a part; NULL: x is whole */
	int whole_width;	  /* values of a whole row, where there are squares */
} m1k_gate;

void m1k_gated_norm(const m1k_gate *p, cudaStream_t stream);
/* out[t] = sum of the squares of row t of x [n, width] */
void m1k_row_squares(const float *x, int n, int width, float *out, cudaStream_t stream);

/* out = the sum of `parts` arrays of n values each, one after the other, in that order */
void m1k_add_parts(const float *x, int parts, size_t n, float *out, cudaStream_t stream);
/* out [n, parts * width] = the rows of x [parts][n, width] side by side */
void m1k_join_parts(const float *x, int parts, int n, int width, float *out, cudaStream_t stream);

void m1k_silu(float *x, size_t n, cudaStream_t stream);

/* out = silu(x) * y, rounded to bf16 */
void m1k_silu_mul(const float *x, const float *y, size_t n, uint16_t *out, cudaStream_t stream);

/* Splits x into up to three bf16 parts that add up to it, to 8, 16 or 24 bits; low and lowest may be NULL. */
void m1k_to_bf16(const float *x, size_t n, uint16_t *high, uint16_t *low, uint16_t *lowest, cudaStream_t stream);

/* ---- product.cu: rows of activations times matrices, plain or one matrix per expert ---- */

typedef struct m1k_product
{
	m1k_type type;
	int rows, cols;
	size_t row_bytes;
	int experts;						/* 1: a plain product, and the three arrays below are NULL */
	const void *w[M1K_MAX_EXPERTS];		/* [rows, cols] each */
	const void *times[M1K_MAX_EXPERTS]; /* NULL, or w3: out = silu(w x) * (times x) */
	const int *group;					/* [E + 1] first place of each expert */
	const int *tiles;					/* [E + 1] first tile of each expert, for m1k_product_tile() tokens a tile */
	const int *x_row;					/* [n] row of x of each place; NULL: the place itself */
	int n;								/* places: tokens, or pairs of token and expert */
	int one_each;						/* no matrix has more than one place */
	const float *x;						/* for m1k_product_few */
	const uint16_t *x_bf16;				/* for m1k_product_many */
	int silu;							/* out = silu(w x), when there is no `times` */
	int scale_out;						/* out is what is there times that */
	float *out;							/* [n, rows], or NULL */
	uint16_t *out_bf16;					/* [n, rows], or NULL */
} m1k_product;

/* Memory-bound: fp32 activations, each weight read once per M1K_FEW_ROWS places, accumulated in fp32. */
void m1k_product_few(const m1k_product *p, cudaStream_t stream);
/* Tensor cores: bf16 activations, weights rounded to bf16, accumulated in fp32. */
void m1k_product_many(const m1k_product *p, cudaStream_t stream);
/* Places of one tile of m1k_product_many for n places over so many experts; that of m1k_product_few is M1K_FEW_ROWS. */
int m1k_product_tile(int n, int experts);
/* Dynamic shared memory beyond 48 KB must be asked for once. */
cudaError_t m1k_product_prepare(void);

/* ---- moe.cu: routing ---- */

typedef struct m1k_route
{
	const float *scores; /* [n, E] router logits */
	int n, experts, top_k;
	int tile;	   /* places of a tile */
	int *choice;   /* [n, top_k] */
	float *weight; /* [n, top_k] renormalised */
	int *group;	   /* [E + 1] */
	int *tiles;	   /* [E + 1] */
	int *place;	   /* [n, top_k] place of each pair, sorted by expert */
	int *token;	   /* [n * top_k] token of each place */
} m1k_route;

void m1k_route_tokens(const m1k_route *p, cudaStream_t stream);
/* The same where choice and weight are there already. */
void m1k_sort_chosen(const m1k_route *p, cudaStream_t stream);

/* out[place] = x[token[place]], rows of `width` bf16 values, a multiple of 8 */
void m1k_gather(const uint16_t *x, const int *token, int n, int width, uint16_t *out, cudaStream_t stream);

/* out[t] = sum over ranks of weight[t, rank] * y[place[t, rank]], in rank order */
void m1k_combine(const float *y, const int *place, const float *weight, int n, int top_k, int width, float *out,
				 cudaStream_t stream);

/* ---- the batch, as kernels see it ---- */

/* One sequence's tokens in the batch, in device memory; rewritten before each step. */
typedef struct m1k_segment
{
	int state; /* index */
	int start; /* position of the first token */
	int n_tokens;
	int row; /* of the first token */
} m1k_segment;

/* ---- lightning.cu ---- */

typedef struct m1k_lightning
{
	const m1k_segment *segments;
	int n_segments;
	int one_each;		 /* all segments are one token long */
	int tensor_cores;	 /* bf16 operands where that is faster; state and sums stay fp32 */
	const float *decay;	 /* [H], device memory */
	const float *qkv;	 /* [T, H, 3, D] */
	float *out;			 /* [T, H, D] */
	float *states;		 /* of this layer: + state * state_stride, [H, D, D] */
	size_t state_stride; /* floats */
	int heads, head_dim;
} m1k_lightning;

void m1k_lightning_attention(const m1k_lightning *p, cudaStream_t stream);
cudaError_t m1k_lightning_prepare(void);

/* ---- attention.cu: softmax attention over paged K and V ---- */

typedef struct m1k_attention
{
	const m1k_segment *segments;
	int n_segments;
	const int *segment_of; /* [T] */
	int n_tokens;		   /* T */
	int one_each;		   /* all segments are one token long */
	float *q;			   /* [T, H, D], rotated in place */
	const float *k;		   /* [T, KV, D] */
	const float *v;		   /* [T, KV, D] */
	float *out;			   /* [T, H, D] */
	const float *rope;	   /* [T, rotary_dim / 2, 2] */
	/* pages: [page][slot][K, V][KV][M1K_PAGE_TOKENS][D], bf16 or fp32 */
	char *pages;
	size_t page_bytes;
	size_t slot_bytes; /* offset of this layer within a page */
	int kv_bf16;
	const int *table; /* [max_states, table_stride] page numbers */
	int table_stride;
	int heads, kv_heads, head_dim, rotary_dim;
	int splits;		/* ranges of a single token's keys that work side by side, at most */
	float *partial; /* [n_segments, H, splits, D + 2] */
} m1k_attention;

/* Cosines and sines of the batch's positions. */
void m1k_rope_table(const m1k_segment *segments, const int *segment_of, int n_tokens, const float *inv_freq, int half,
					float *rope, cudaStream_t stream);
void m1k_softmax_attention(const m1k_attention *p, cudaStream_t stream);
cudaError_t m1k_attention_prepare(void);

/* ---- sample.cu: the next token of each row of logits ---- */

#define M1K_MAX_VOCAB (1 << 18)
#define M1K_SAMPLE_BINS 1024

/* What is asked of a row; see m1b_draw. */
typedef struct m1k_draw
{
	const float *logits; /* [vocab] the row's */
	double uniform;
	float temperature;
	float top_p;
	int top_k;
	int mask; /* of the masks; -1 = all tokens may come */
} m1k_draw;

typedef struct m1k_tally
{
	unsigned long long weight;
	unsigned long long tokens; /* of 64 bits, too: no padding, which nobody would wipe */
} m1k_tally;

/* What the kernels know of a row so far. */
typedef struct m1k_found
{
	unsigned long long best; /* of the tokens that may come: its value, then its id */
	unsigned long long all;	 /* weight of all tokens in the model's own distribution */
	m1k_tally kept;			 /* what may still be drawn, at the row's temperature */
	/* the search */
	unsigned long long place;
	unsigned long long target;
	m1k_tally before;	/* what comes before the tokens of that place */
	unsigned likeliest; /* of all tokens */
	unsigned broken;	/* 1: some logit is not a finite number */
} m1k_found;

typedef struct m1k_pick
{
	int id;
	float probability; /* NaN when the row is broken */
} m1k_pick;

typedef struct m1k_sample
{
	int vocab;			   /* at most M1K_MAX_VOCAB */
	const uint64_t *masks; /* [masks, mask_words]: bit id % 64 of word id / 64 */
	int mask_words;
	m1k_draw *draws; /* [n], zeros afterwards */
	int n;
	m1k_found *found; /* [n], zeros before and afterwards, as are the bins */
	m1k_tally *bins;  /* [n, M1K_SAMPLE_BINS] */
	m1k_pick *picks;  /* [n] out, pinned memory of the host */
} m1k_sample;

/* The searches one after the other. */
enum m1k_stage
{
	M1K_TOP_K,
	M1K_TOP_P,
	M1K_DRAW,
	M1K_STAGES,
};

/* stages: a bit for each that some row needs. */
void m1k_sample_tokens(const m1k_sample *p, unsigned stages, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
