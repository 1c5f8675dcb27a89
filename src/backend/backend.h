/*
 * backend.h - the operations a device offers to the model: model-shaped, so that
 * one forward.c drives every device and the CPU is the oracle of the others.
 *
 * Called only from the engine's step thread. Operations take params structs and
 * may be asynchronous; read() ends a step. Activations are float32 arrays in
 * device memory, row-major, obtained from `scratch`; on the CPU they are ordinary
 * pointers. No operation allocates.
 *
 * On the CPU a row's result depends only on that row and its sequence's state, bit
 * for bit: not on which other rows share the batch, nor on the number of threads. On
 * a GPU that holds for up to 8 rows, and to rounding beyond.
 *
 * Shapes: T tokens in the batch, d hidden size, H heads, KV key/value heads,
 * D head size, E experts, F expert width.
 */
#ifndef M1_BACKEND_BACKEND_H
#define M1_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "blocks/blocks.h" /* m1b_dtype */

/* What a matrix is for. */
typedef enum m1b_use
{
	M1B_USE_PRODUCT, /* m1b_linear and m1b_moe */
	M1B_USE_ROWS,	 /* m1b_embed */
	M1B_USE_HEAD,	 /* logits and the router, as exact as the weights are: activations keep fp32's precision */
} m1b_use;

/*
 * How several devices divide a matrix. The rows of x that go into one by columns come out of products with ones by
 * rows, by way of operations on heads or on elements: each device has its own part of such rows, and the parts of the
 * result are added up. All other rows are whole on every device; logits are, because the parts are put together.
 */
typedef enum m1b_split
{
	M1B_WHOLE,
	M1B_SPLIT_ROWS, /* each device has consecutive rows, and makes their outputs */
	M1B_SPLIT_COLS, /* each device has consecutive columns */
} m1b_split;

/* A weight matrix [rows, cols]; y = x W^T has `rows` outputs. On several devices the sizes are those of one's part. */
typedef struct m1b_matrix
{
	const void *data; /* device memory, maybe unaligned, in the backend's own layout; not owned by the operation */
	m1b_dtype type;
	m1b_use use;
	m1b_split split; /* M1B_WHOLE where there is one device */
	int rows;
	int cols;
} m1b_matrix;

/* A matrix as it is stored, row-major: all of it, even where each device is to have a part. */
typedef struct m1b_stored_matrix
{
	const void *host; /* see m1b_ops.matrix for how long it must stay */
	m1b_dtype type;
	m1b_use use;
	m1b_split split; /* how several devices are to divide it */
	int rows;
	int cols;
} m1b_stored_matrix;

/* What the sizes of states and of the attention operations depend on. */
typedef struct m1b_geometry
{
	int heads;		/* H */
	int kv_heads;	/* KV, divides H */
	int head_dim;	/* D */
	int rotary_dim; /* even, <= D */
	float rope_theta;
	int lightning_layers;
	int softmax_layers;
	int max_context;	 /* tokens of one sequence */
	int max_states;		 /* sequences at once */
	int max_tokens;		 /* T at most */
	int max_moe_pairs;	 /* T * experts per token at most */
	int expert_width;	 /* F */
	int hidden;			 /* d */
	int experts;		 /* E */
	int vocab;			 /* outputs of the head, from which m1b_ops.sample chooses */
	size_t weight_bytes; /* of all matrices: memory that kv_bytes = 0 leaves alone */
	size_t whole_bytes;	 /* of those, the ones that every one of several devices has whole */
	/*
	 * Budget of sequences' KV pages, on all devices together; 0 = a safe share of the device's memory. Never more is
	 * used than max_states full contexts take. It may be less than one: see m1b_memory.pages.
	 */
	size_t kv_bytes;
	size_t snapshot_bytes; /* what the caller lets snapshots take, on top: the pool has pages for that, too */
	/* what will be asked for after configure, so that a device can plan its memory before anything is loaded */
	size_t weight_matrices; /* how many there are */
	size_t scratch_bytes;	/* of all m1b_ops.scratch */
	bool f32_weights;		/* the experts are F32: a device keeps activations and KV in fp32, too */
	bool bf16_experts;		/* all of them are BF16 */
	bool integer_experts;	/* they are quantized to integers: the CPU keeps KV in bf16, too */
} m1b_geometry;

/* One sequence's memory: a fp32 state [H, D, D] per lightning layer, paged K and V per softmax layer. */
typedef struct m1b_state m1b_state;

/*
 * What a sequence held at one position, kept so that other sequences can start there. It never changes: full KV pages
 * are shared with the sequences before and after it, by reference count, and nobody writes to a full page; the last,
 * partly filled page and the lightning states are copies.
 */
typedef struct m1b_snapshot m1b_snapshot;

/* Whose memory a snapshot is. */
typedef enum m1b_account
{
	/* Others may start from it: geometry.snapshot_bytes pays, and m1b_memory counts it among the snapshots. */
	M1B_SHARED,
	/*
	 * The sequence itself goes back to it: one of m1b_memory.own_places, and of the sequence's pages, which it has
	 * trimmed by one at least.
	 */
	M1B_OWN,
} m1b_account;

/* The pool of KV pages, and places for snapshots. */
typedef struct m1b_memory
{
	int page_tokens;	   /* tokens of one page */
	size_t page_bytes;	   /* of one page, all softmax layers */
	int pages;			   /* what one sequence can have at most: kv_bytes in pages */
	int free_pages;		   /* neither in use nor reserved */
	int snapshot_pages;	   /* in use by M1B_SHARED snapshots alone: free once those are released */
	int snapshots;		   /* how many of them there are */
	size_t snapshot_bytes; /* of all of them; a page that several share counts once */
	int own_places;		   /* M1B_OWN snapshots that there may be at once: one at least */
} m1b_memory;

/* n_tokens consecutive tokens of one sequence, at rows row .. of the batch. */
typedef struct m1b_segment
{
	m1b_state *state;
	int start; /* position of the first token in its sequence */
	int n_tokens;
	int row;
	int adapter; /* the number that the model has given to the sequence's adapter; 0 = none. Operations have m1b_runs */
} m1b_segment;

typedef struct m1b_batch
{
	const int32_t *tokens;		 /* [T] */
	int n_tokens;				 /* T */
	const m1b_segment *segments; /* in the order of their rows */
	int n_segments;
} m1b_batch;

typedef enum m1b_activation
{
	M1B_NONE,
	M1B_SILU,
} m1b_activation;

/* out[t] = row tokens[t] of table */
typedef struct m1b_embed
{
	const m1b_matrix *table;
	const int32_t *tokens; /* those of the batch */
	int n;
	float *out; /* [n, d] */
} m1b_embed;

/*
 * sum = alpha * residual + beta * branch; out = RMS(sum) * weight. With branch NULL, sum is residual itself.
 * keep_sum (may be NULL, may be residual) receives sum.
 */
typedef struct m1b_norm
{
	const float *residual; /* [n, width] */
	const float *branch;   /* [n, width] or NULL */
	float alpha, beta;
	float *keep_sum;
	const float *weight; /* [width] */
	float eps;
	int n, width;
	float *out; /* [n, width]; not residual, not branch */
} m1b_norm;

/*
 * What an adapter makes of a matrix W [rows, cols]: x W^T becomes x W'^T + scale (x a^T) b, with activations in fp32 in
 * the latter.
 */
typedef struct m1b_adapted
{
	const m1b_matrix *whole; /* W', which was trained as a whole; NULL: W itself. Not of experts */
	const float *a;			 /* [rank, cols] */
	const float *b;			 /* [rank, rows] */
	int rank;				 /* 0: nothing is added */
	float scale;
} m1b_adapted;

/* The matrices of m1b_moe, in a run. */
typedef enum m1b_moe_matrix
{
	M1B_MOE_ROUTER,
	M1B_MOE_W1,
	M1B_MOE_W2,
	M1B_MOE_W3,
	M1B_MOE_MATRICES
} m1b_moe_matrix;

/* Rows of x, one after the other, whose sequences use the same adapter. */
typedef struct m1b_run
{
	int row, n;
	/*
	 * What it makes of each matrix of the operation, NULL for nothing: of each product's weight; or of the router, w1,
	 * w2 and w3, where the experts' are arrays of E.
	 */
	const m1b_adapted *matrices[M1B_MOE_MATRICES];
} m1b_run;

/* What adapters change in an operation. Rows of no run go through the model as it is. */
typedef struct m1b_runs
{
	const m1b_run *list; /* ascending */
	int n;
} m1b_runs;

/* out = activation(x W^T), accumulated in fp32 */
typedef struct m1b_product
{
	const m1b_matrix *weight; /* [rows, d] */
	m1b_activation activation;
	float *out; /* [n, rows] */
} m1b_product;

#define M1B_MAX_PRODUCTS 3

/* Up to M1B_MAX_PRODUCTS products of the same input, at once: one by one, each would wait for the slowest thread. */
typedef struct m1b_linear
{
	const float *x; /* [n, d] */
	int n;
	m1b_product products[M1B_MAX_PRODUCTS];
	int n_products;
	m1b_runs adapters;
} m1b_linear;

/* Linear attention with exponential decay; advances layer `slot` of each segment's state. */
typedef struct m1b_lightning
{
	const m1b_batch *batch;
	int slot;			/* index among the lightning layers */
	const float *decay; /* [H] lambda */
	const float *qkv;	/* [T, H, 3, D]: q, k, v interleaved per head */
	float *out;			/* [T, H, D] */
} m1b_lightning;

/* out = RMS(x) * weight * sigmoid(gate), elementwise; out may be x */
typedef struct m1b_gate
{
	const float *x;		 /* [n, width] */
	const float *gate;	 /* [n, width] */
	const float *weight; /* [width] */
	float eps;
	int n, width;
	float *out;
} m1b_gate;

/* Rotates q and k, appends k and v to the KV pages of layer `slot`, and attends causally. */
typedef struct m1b_attention
{
	const m1b_batch *batch;
	int slot;		/* index among the softmax layers */
	float *q;		/* [T, H, D]; rotated in place */
	float *k;		/* [T, KV, D]; maybe rotated in place */
	const float *v; /* [T, KV, D] */
	float *out;		/* [T, H, D] */
} m1b_attention;

/* What gradients need of m1b_moe, for the rows of its x. */
typedef struct m1b_moe_kept
{
	float *logits;	 /* [n, E] of the router */
	int32_t *choice; /* [n, top_k] experts */
	float *weight;	 /* [n, top_k] */
	float *gate;	 /* [n, top_k, F] w1 x */
	float *up;		 /* [n, top_k, F] w3 x */
	bool replay;	 /* choice is read: where it is not negative, these are the experts, whatever the router says now */
} m1b_moe_kept;

/* Router in fp32, top-k experts renormalised, out = sum_k p_k w2(silu(w1 x) * w3 x). */
typedef struct m1b_moe
{
	const m1b_matrix *router;  /* [E, d] */
	const m1b_matrix *w1, *w3; /* E matrices [F, d] each; those of w1 of one type, those of w3 of one type */
	const m1b_matrix *w2;	   /* E matrices [d, F] of one type */
	int experts;			   /* E */
	int top_k;
	const float *x; /* [n, d] */
	int n;
	float *out;				  /* [n, d] */
	const m1b_moe_kept *kept; /* filled when a device that can learn is to; NULL when serving */
	int32_t *choice;		  /* [n, top_k] host, filled with the experts if m1b_learning.keeps_choices; or NULL */
	m1b_runs adapters;
} m1b_moe;

/* How one row's next token is chosen: model/sampler.h has the rules. */
typedef struct m1b_draw
{
	int row;				 /* of the logits */
	float temperature;		 /* 0 = the likeliest token */
	float top_p;			 /* (0, 1] */
	int top_k;				 /* 0 = off */
	double uniform;			 /* the random number, in [0, 1) */
	const uint64_t *allowed; /* host; a bit for each token that may come, 64 a word; NULL = all. Rows may share one */
} m1b_draw;

typedef struct m1b_pick
{
	int32_t id;
	float probability; /* of id in the model's own distribution, at temperature 1 over the whole vocabulary; NaN where
						  the logits are not all finite numbers, and id means nothing */
} m1b_pick;

/* Chooses the next tokens where the logits are. */
typedef struct m1b_sample
{
	const float *logits;   /* [rows, vocab] */
	const m1b_draw *draws; /* [n] on the host, n at most max_states */
	int n;
	m1b_pick *picks; /* [n] on the host, out */
} m1b_sample;

typedef struct m1b_backend m1b_backend;
typedef struct m1b_learning m1b_learning; /* learning.h */

typedef struct m1b_ops
{
	void (*close)(m1b_backend *b);
	const char *(*describe)(const m1b_backend *b); /* "cpu (AVX-512, 2 threads)" */

	/* Sizes states and work memory. Called once, before any of the following. */
	m1_status (*configure)(m1b_backend *b, const m1b_geometry *g, m1_error *err);

	/*
	 * Makes a stored matrix usable by operations. *borrowed tells whether the host bytes must stay where they are until
	 * close; if not, the backend has a copy of its own.
	 */
	m1_status (*matrix)(m1b_backend *b, const m1b_stored_matrix *p, m1b_matrix *out, bool *borrowed, m1_error *err);
	/* n floats of device memory, zeroed, freed by close; filled from host when that is not NULL. */
	float *(*scratch)(m1b_backend *b, size_t n, const float *host);
	/*
	 * Makes room for what operations do with adapters of at most this rank; before the first step with one. Their a
	 * and b are the caller's, who may change them between steps. NULL: the device knows no adapters.
	 */
	m1_status (*prepare_adapters)(m1b_backend *b, int max_rank, m1_error *err);

	/*
	 * A zeroed state for a sequence of at most n_tokens; NULL when no state or not enough KV pages are free
	 * (the caller waits). Everything the sequence may need is reserved here, so that no step can run out.
	 */
	m1b_state *(*state_acquire)(m1b_backend *b, int n_tokens);
	/* The same, but for what the snapshot holds: the sequence goes on from there. */
	m1b_state *(*state_acquire_from)(m1b_backend *b, int n_tokens, const m1b_snapshot *from);
	/* The sequence will not have more than n_tokens after all: gives back what is reserved for more. */
	void (*state_trim)(m1b_backend *b, m1b_state *state, int n_tokens);
	/* Gives the memory back and wipes it, but for pages that a snapshot or another sequence shares. */
	void (*state_release)(m1b_backend *b, m1b_state *state);

	/*
	 * A snapshot of a sequence after the n_tokens that it has been fed so far; NULL when there is no free page, place
	 * or memory for it. Not a part of a step: it may allocate.
	 */
	m1b_snapshot *(*snapshot_take)(m1b_backend *b, const m1b_state *state, int n_tokens, m1b_account account);
	/*
	 * What snapshot_take of an M1B_SHARED one would add to m1b_memory.snapshot_bytes now; with state NULL, what it
	 * could add at most.
	 */
	size_t (*snapshot_cost)(const m1b_backend *b, const m1b_state *state, int n_tokens);
	/* Gives back and wipes what nobody shares. */
	void (*snapshot_release)(m1b_backend *b, m1b_snapshot *snapshot);
	m1b_memory (*memory)(const m1b_backend *b);

	/*
	 * Once per step, before the layers. true: the device has recorded the layers of a step of this shape and has
	 * started them; none of the operations up to end() is to be called.
	 */
	bool (*begin)(m1b_backend *b, const m1b_batch *batch);
	void (*embed)(m1b_backend *b, const m1b_embed *p);
	void (*norm)(m1b_backend *b, const m1b_norm *p);
	void (*linear)(m1b_backend *b, const m1b_linear *p);
	void (*lightning)(m1b_backend *b, const m1b_lightning *p);
	void (*gate)(m1b_backend *b, const m1b_gate *p);
	void (*attention)(m1b_backend *b, const m1b_attention *p);
	void (*moe)(m1b_backend *b, const m1b_moe *p);
	/*
	 * After the last layer; norm, linear and read may follow. false: nothing of the layers is done, because the device
	 * has refused to record them: all operations since begin() are to be called again, and end(), which is true then.
	 */
	bool (*end)(m1b_backend *b);

	/* Waits for the step and copies n floats to the host; out may alias device memory on the CPU. */
	m1_status (*read)(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err);
	/*
	 * Waits for the step, as read does, and copies only the picks to the host. NULL, or M1_E_UNSUPPORTED with nothing
	 * done, where the caller is to read the logits and choose by itself.
	 */
	m1_status (*sample)(m1b_backend *b, const m1b_sample *p, m1_error *err);

	const m1b_learning *learning; /* NULL: nothing can be trained on this device */
} m1b_ops;

struct m1b_backend
{
	const m1b_ops *ops;
};

/*
 * threads: 0 = all cores. isa: NULL = the best the processor has, or "portable", "avx2", "avx512", "avx512vnni" (for
 * tests).
 */
m1_status m1b_cpu_open(int threads, const char *isa, m1b_backend **out, m1_error *err);

/* Device memory that n floats of scratch take at most: backends align them. */
static inline size_t
m1b_scratch_bytes(size_t n)
{
	return (n * sizeof(float) + 255) / 256 * 256;
}

typedef struct m1b_cuda_options
{
	int gpus;									  /* that share the model, the first ones; 0 is 1 */
	void (*log)(void *context, const char *line); /* told how device memory is divided; may be NULL */
	void *log_context;
} m1b_cuda_options;

/* Whether this engine can run on a GPU of this machine. */
bool m1b_cuda_present(void);
/*
 * The first GPUs. M1_E_DEVICE when there are fewer or they differ, or when this engine was built without CUDA. A model
 * that cannot be divided among them is refused by configure and by matrix.
 */
m1_status m1b_cuda_open(const m1b_cuda_options *options, m1b_backend **out, m1_error *err);

#endif
