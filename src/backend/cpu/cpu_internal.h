/*
 * cpu_internal.h - what the files of the CPU backend share. Nobody else includes it,
 * but for tests that look into the memory of states.
 */
#ifndef M1_BACKEND_CPU_CPU_INTERNAL_H
#define M1_BACKEND_CPU_CPU_INTERNAL_H

#include "backend/backend.h"
#include "backend/cpu/cpu_kernels.h"
#include "backend/pages.h"
#include "backend/cpu/cpu_packed.h"
#include "base/pool.h"

#define M1B_LIGHTNING_BLOCK 64 /* tokens of one lightning block */
#define M1B_QUERY_TOKENS 16	   /* query tokens of one softmax attention piece */
#define M1B_MAX_GROUP 64	   /* query heads per kv head at most */
#define M1B_MAX_PIECE_ROWS 64  /* weight rows of one piece of a product at most */

/*
 * A page, which is also the key block of softmax attention, holds M1B_PAGE_TOKENS tokens
 * of one sequence for all softmax layers, in kv_type: [layer][K, V][kv head], of K
 * [D][token], of V [token][D]. That way scores and outputs are both products whose right
 * side is read along its rows.
 */
struct m1b_state
{
	float *lightning; /* [lightning layers, H, D, D] */
	m1b_page_list list;
	bool used;
};

struct m1b_snapshot
{
	float *lightning; /* a mapping of its own, state_bytes long; NULL when a state has none */
	m1b_account account;
	int n_pages;
	bool partial; /* the last page is not full: it belongs to this snapshot alone */
	int pages[];  /* as in m1b_page_list */
};

typedef struct m1b_cpu
{
	m1b_backend base; /* first, so that the two pointers convert */
	const m1b_kernels *k;
	m1_pool *pool;
	m1b_geometry g;
	char description[64];

	/* cpu_state.c */
	m1b_state *states;	/* [max_states] */
	m1b_dtype kv_type;	/* of pages: F32, or BF16 where experts are quantized anyway */
	m1b_pages pages;	/* its state_bytes and page_bytes are rounded to pages of the system */
	char *state_memory; /* [max_states][state_bytes], mapped on first touch */
	char *page_memory;	/* [n_pages][page_bytes], mapped on first touch */

	/* cpu_attention.c */
	float *inv_freq;		/* [rotary_dim / 2] */
	float *rope;			/* [max_tokens][rotary_dim / 2][cos, sin], filled by begin */
	float **worker_scratch; /* [threads]: attention's work memory */
	size_t scratch_floats;
	struct m1b_piece *pieces; /* what each piece of an attention loop works on */
	int max_pieces;

	/* cpu_moe.c */
	struct m1b_moe_work *moe;

	/* cpu_learn.c */
	struct m1b_learn_work *learn; /* NULL until something is to be learned */
	size_t taken;				  /* bytes that learning holds beside that */

	/* cpu_weights.c */
	struct m1b_chunk *chunks; /* memory of packed matrices */

	/* cpu_product.c: row pointers of products, [max rows of any] each */
	const float **x_rows;
	float **out_rows[M1B_MAX_PRODUCTS];
	void **q_rows;	/* into q_memory */
	char *q_memory; /* [max rows][q_row_bytes] quantized activations */
	size_t q_row_bytes;

	/* cpu_adapters.c */
	float
		*inner[M1B_MAX_PRODUCTS]; /* [max rows of any][max_rank]: what a product's a, or an expert's, makes of a row */
	int max_rank;				  /* 0: no adapter can be used yet */

	void **owned; /* scratch blocks, freed by close */
	int n_owned;
	int cap_owned;
} m1b_cpu;

static inline m1b_cpu *
m1b_cpu_of(m1b_backend *b)
{
	return (m1b_cpu *) b;
}

/* n, or the next multiple of unit. */
static inline size_t
m1b_round_up(size_t n, size_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/* cpu_loop.c */
/* Runs the loop on the pool when it is worth it: `work` counts its multiply-adds. */
void m1b_cpu_loop(m1b_cpu *c, double work, int pieces, m1_pool_fn fn, void *arg);

/* How many weight rows a piece of a product takes, so that each thread gets several pieces of useful size. */
int m1b_cpu_rows_per_piece(const m1b_cpu *c, int rows, int parts);

/* cpu_weights.c */
m1_status m1b_cpu_matrix(m1b_backend *b, const m1b_stored_matrix *p, m1b_matrix *out, bool *borrowed, m1_error *err);
void m1b_cpu_weights_free(m1b_cpu *c);

/* cpu_product.c */
m1_status m1b_cpu_product_configure(m1b_cpu *c, m1_error *err);
void m1b_cpu_product_free(m1b_cpu *c);
void m1b_cpu_embed(m1b_backend *b, const m1b_embed *p);
void m1b_cpu_linear(m1b_backend *b, const m1b_linear *p);

/* How many rows a product may have at most. */
size_t m1b_cpu_max_rows(const m1b_cpu *c);

/* Rows of activations, and the same quantized where the weights need it. */
typedef struct m1b_operand
{
	const float *const *x; /* [n] */
	void *const *q;		   /* [n]; for the head, n more with what quantizing left over */
	int n;
} m1b_operand;

/* x as an operand for all of these weights, which have one width but may differ in type; valid until the next call. */
m1b_operand m1b_cpu_operand(m1b_cpu *c, const float *const *x, int n, const m1b_matrix *const *weights, int n_weights);
/* out[t][j] for rows [row0, row1) of the weight, row0 a multiple of M1B_PANEL_ROWS; single-threaded. */
void m1b_cpu_product(const m1b_cpu *c, const m1b_matrix *weight, const m1b_operand *in, int row0, int row1,
					 float *const *out);

/* cpu_adapters.c */
m1_status m1b_cpu_prepare_adapters(m1b_backend *b, int max_rank, m1_error *err);
void m1b_cpu_adapters_free(m1b_cpu *c);
/* inner = scale x a^T for n rows of x, which have cols columns; rows of inner are max_rank apart. Single-threaded. */
void m1b_cpu_shrink(const m1b_cpu *c, const m1b_adapted *m, const float *const *x, int cols, int n, float *inner);
/* out[t][j] += inner[t] b for n rows, `rows` apart, and j in [row0, row1): b is [rank, rows]. Single-threaded. */
void m1b_cpu_expand(const m1b_cpu *c, const m1b_adapted *m, const float *inner, int rows, int n, int row0, int row1,
					float *out);
/* Fills inner for all products and rows that adapters add to. */
void m1b_cpu_linear_shrink(m1b_cpu *c, const m1b_linear *p);
/* Adds to rows [row0, row1) of a product what they add. */
void m1b_cpu_linear_expand(const m1b_cpu *c, const m1b_linear *p, int product, int row0, int row1);
/* The products whose weight an adapter replaces, for its rows. */
void m1b_cpu_linear_replace(m1b_cpu *c, const m1b_linear *p);

/* cpu_state.c */
m1_status m1b_cpu_states_configure(m1b_cpu *c, m1_error *err);
void m1b_cpu_states_free(m1b_cpu *c);
m1b_state *m1b_cpu_state_acquire(m1b_backend *b, int n_tokens);
m1b_state *m1b_cpu_state_acquire_from(m1b_backend *b, int n_tokens, const m1b_snapshot *from);
void m1b_cpu_state_release(m1b_backend *b, m1b_state *state);
void m1b_cpu_state_trim(m1b_backend *b, m1b_state *state, int n_tokens);
m1b_snapshot *m1b_cpu_snapshot_take(m1b_backend *b, const m1b_state *state, int n_tokens, m1b_account account);
size_t m1b_cpu_snapshot_cost(const m1b_backend *b, const m1b_state *state, int n_tokens);
void m1b_cpu_snapshot_release(m1b_backend *b, m1b_snapshot *snapshot);
m1b_memory m1b_cpu_memory(const m1b_backend *b);
/* K or V of one kv head in one page. */
size_t m1b_cpu_head_bytes(const m1b_cpu *c);
/* Makes sure that pages for positions [0, n_tokens) are there; cannot fail within the reservation. */
void m1b_cpu_state_extend(m1b_cpu *c, m1b_state *state, int n_tokens);
/* K (which = 0) or V (which = 1) of one kv head in one page: [D, M1B_PAGE_TOKENS] or [M1B_PAGE_TOKENS, D] of kv_type */
void *m1b_cpu_page(const m1b_cpu *c, const m1b_state *state, int page, int slot, int which, int kv_head);

/* cpu_attention.c */
m1_status m1b_cpu_attention_configure(m1b_cpu *c, m1_error *err);
void m1b_cpu_attention_free(m1b_cpu *c);
bool m1b_cpu_begin(m1b_backend *b, const m1b_batch *batch);
void m1b_cpu_lightning(m1b_backend *b, const m1b_lightning *p);
void m1b_cpu_attention(m1b_backend *b, const m1b_attention *p);

size_t m1b_cpu_lightning_scratch(const m1b_geometry *g);
size_t m1b_cpu_attention_scratch(const m1b_geometry *g);
/* One block of m tokens of one head; q, k and v lie D apart in rows `stride` apart. scratch as for lightning. */
void m1b_cpu_lightning_block(const m1b_cpu *c, float *scratch, float *state, const float *q, size_t stride, int m,
							 float lambda, float *out, size_t out_stride);
/* What that does to the state; scaled_k [m, D] is work memory, decay[i] = e^(-lambda i) for i <= m. */
void m1b_cpu_lightning_advance(const m1b_cpu *c, float *scaled_k, float *state, const float *k, const float *v,
							   size_t stride, int m, const float *decay);
/* Multiplies scores [m][M1B_LIGHTNING_BLOCK] by e^(-lambda (p - r)), and makes those of later keys zeros. */
void m1b_cpu_decay_scores(float *scores, const float *decay, int m);

/* [rotary_dim / 2][cos, sin] of one position, and the rotation of one head by it. */
void m1b_cpu_rotation(const m1b_cpu *c, int position, float *rope);
void m1b_cpu_rotate(const m1b_cpu *c, float *x, const float *rope);
/* Puts a head's numbers into its part of a page, `step` places apart from `first` on. */
void m1b_cpu_store_head(const m1b_cpu *c, const float *x, void *part, size_t first, size_t step);

/* The queries that share a kv head, of up to M1B_QUERY_TOKENS tokens. */
typedef struct m1b_queries
{
	int n_tokens;
	int position; /* of the first token */
	int kv_head;
	const float *q; /* [n_tokens, H, D] rotated */
	float *out;		/* [n_tokens, H, D] */
	float *lse;		/* [n_tokens, H] or NULL */
} m1b_queries;

/* Row r of the queries' tile, as a place in [n_tokens, H]. */
static inline size_t
m1b_cpu_query_head(const m1b_cpu *c, const m1b_queries *p, int r)
{
	const int group = c->g.heads / c->g.kv_heads;

	return (size_t) (r / group * c->g.heads + p->kv_head * group + r % group);
}

/* K (which = 0) or V (which = 1) of one kv head in one page, as m1b_cpu_page. */
typedef const void *(*m1b_page_fn)(const void *pages, int page, int which, int kv_head);
void m1b_cpu_attend(const m1b_cpu *c, float *scratch, const m1b_queries *p, m1b_page_fn page, const void *pages);

/* cpu_moe.c */
m1_status m1b_cpu_moe_configure(m1b_cpu *c, m1_error *err);
void m1b_cpu_moe_free(m1b_cpu *c);
void m1b_cpu_moe(m1b_backend *b, const m1b_moe *p);

#endif
