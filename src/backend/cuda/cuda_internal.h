/*
 * cuda_internal.h - what the files of the CUDA backend share. Nobody else includes it.
 *
 *   cuda_open.c    which GPUs there are
 *   cuda.c         life of the backend on one of them, the memory plan, small operations
 *   cuda_error.c   the first failure
 *   cuda_memory.c  device memory, pinned memory, copies
 *   cuda_weights.c weights on their way to the device
 *   cuda_state.c   sequences' memory: lightning states and KV pages
 *   cuda_step.c    a step: its batch on the device, its layers, its end
 *   cuda_graphs.c  what is recorded of steps
 *   cuda_rounded.c the bf16 copy of the rows that products read
 *   cuda_product.c linear and experts
 *   cuda_experts.c experts with many tokens each
 *   cuda_gemm.c    cuBLASLt
 *   cuda_attention.c lightning and softmax attention
 *   cuda_sample.c  the next tokens, from logits that stay on the device
 *   cuda_group*.c  several GPUs as one backend
 *   cuda_nccl.c    what they exchange
 *
 * Host code only; kernels are in kernels/ (m1k.h). All device work of a step is on one
 * stream. A CUDA error is kept until m1b_ops.read, which reports the first one; what is
 * launched after it has no effect. The engine process ends then: a device that failed
 * once is not trusted again.
 *
 * With several GPUs there is one m1b_cuda for each, a rank: it has its part of the heads,
 * of every expert's inner width and of the vocabulary, and everything else like the others.
 * Its operations add up with the others' what each has a part of, and exchange the parts
 * of the logits, so that all have the same rows. All ranks lay out their arenas alike and
 * count states, pages and snapshots alike.
 */
#ifndef M1_BACKEND_CUDA_CUDA_INTERNAL_H
#define M1_BACKEND_CUDA_CUDA_INTERNAL_H

#include <cuda_runtime.h>

#include "kernels/m1k.h"
#include "backend/backend.h"
#include "backend/pages.h"
#include "base/pool.h"

#define M1B_CUDA_ALIGNMENT 256
#define M1B_CUDA_RECORDINGS 64 /* batches of up to so many single tokens have a graph, and so many draws */
#define M1B_CUDA_MAX_GPUS 16
#define M1B_CUDA_GEMM_SPACE ((size_t) 32 << 20)
#define M1B_CUDA_EXPANDED_ROWS 4096 /* of quantized weights, made bf16 for the library at once */
#define M1B_CUDA_LANES 4			/* experts that are multiplied side by side */

/* How device memory is divided; made before anything is allocated. Bytes. */
typedef struct m1b_cuda_plan
{
	size_t available; /* free on the device, less a reserve for CUDA itself */
	size_t weights;
	size_t activations; /* what the model asks for by m1b_ops.scratch */
	size_t work;		/* the backend's own buffers */
	size_t states;
	size_t pages;
	size_t state_bytes; /* one sequence's lightning states */
	size_t slot_bytes;	/* K and V of one page and layer */
	size_t page_bytes;
	int snapshots;		/* places for M1B_SHARED snapshots' lightning states */
	int own_places;		/* and for M1B_OWN ones' */
	int sequence_pages; /* of n_pages, what sequences may use; the rest is for snapshots */
	int n_pages;
} m1b_cuda_plan;

/* Memory handed out from one end, never given back before close. */
typedef struct m1b_cuda_arena
{
	char *base;
	size_t size;
	size_t used;
} m1b_cuda_arena;

struct m1b_state
{
	int index;
	m1b_page_list list; /* its numbers are a row of m1b_cuda.page_numbers */
	int uploaded;		/* pages that the device's table knows */
	bool used;
};

struct m1b_snapshot
{
	int index; /* of its copy of a state, after those of the sequences */
	m1b_account account;
	int *pages; /* NULL = this place is free */
	int n_pages;
	bool partial; /* the last page is not full: it belongs to this snapshot alone */
};

/* Launches that are the same each time, recorded the second time that they come. */
typedef struct m1b_cuda_recording
{
	int seen;
	cudaGraphExec_t graph; /* or NULL */
} m1b_cuda_recording;

/* A stream for some of the experts, with work space of its own. */
typedef struct m1b_cuda_lane
{
	cudaStream_t stream;
	cudaEvent_t done;
	float *gate, *up; /* [m1b_cuda_expert_rows(), F] */
} m1b_cuda_lane;

typedef struct m1b_cuda
{
	m1b_backend base; /* first, so that the two pointers convert */
	m1b_geometry g;
	m1b_cuda_plan plan;
	char description[128];
	char gpu_name[81];
	double gpu_gb;
	void (*log)(void *context, const char *line);
	void *log_context;
	bool tensor_cores; /* bf16 operands where there are many rows; not for all-F32 checkpoints */
	int device;
	cudaStream_t stream;

	/* of several GPUs; one alone is rank 0 of 1, and has no communicator */
	int rank, ranks;
	struct ncclComm *comm;
	float *squares; /* [max_tokens] of the inner norm's rows */
	float *parts;	/* [ranks][M1K_FEW_ROWS, d]: what few rows are on each rank */
	float *slices;	/* [ranks][max_states, vocab / ranks]: each rank's columns of the logits */

	/* the first failure, and what was being done */
	cudaError_t failure;
	const char *failed_at;
	const char *nccl_says; /* why, when it was NCCL that failed */

	m1b_cuda_arena arena;			/* weights, activations, work */
	struct m1b_cuda_loader *loader; /* until the first step */
	struct m1b_cuda_gemm *gemm;

	/* cuda_state.c */
	m1b_state *states;		 /* [max_states] */
	m1b_snapshot *snapshots; /* [plan.snapshots + own_places], the M1B_SHARED ones first */
	m1b_pages pages;
	float *state_memory; /* [max_states + snapshots + own_places][state_bytes] */
	char *page_memory;
	int *page_numbers; /* [max_states, table_stride]: the lists of all states */
	int *host_table;   /* the same as it was sent, pinned */
	int table_stride;

	/* the step, on the device and as pinned copies that are rewritten once `uploaded` has happened */
	int *tokens, *host_tokens;			   /* [max_tokens] */
	int *segment_of, *host_segment_of;	   /* [max_tokens] */
	m1k_segment *segments, *host_segments; /* [max_states] */
	int *device_table;
	cudaEvent_t uploaded;
	const m1b_batch *batch;
	bool one_each;											/* all segments are one token long */
	m1b_cuda_recording recordings[M1B_CUDA_RECORDINGS + 1]; /* of the layers, with n single tokens */
	m1b_cuda_recording *recording;							/* what is being recorded, or NULL */

	/* work buffers */
	float *inv_freq;		   /* [rotary_dim / 2] */
	float *rope;			   /* [max_tokens, rotary_dim / 2, 2] */
	float *partial;			   /* [max_states, H, splits, D + 2] */
	uint16_t *rounded;		   /* bf16 copy of the rows that a product reads */
	const float *rounded_from; /* the rows it is a copy of; NULL = none */
	uint16_t *expanded;		   /* [M1B_CUDA_EXPANDED_ROWS, the longer of d and H * D] */
	uint16_t *head_parts;	   /* [3][max_states, d]: rows of the head in three bf16 parts */
	float *scores;			   /* [max_tokens, E] */
	int *choice;			   /* [max_moe_pairs] */
	float *weight;			   /* [max_moe_pairs] */
	int *group;				   /* [E + 1] */
	int *tiles;				   /* [E + 1] */
	int *place;				   /* [max_moe_pairs] */
	int *token;				   /* [max_moe_pairs] */
	float *hidden;			   /* [hidden_rows, F] */
	size_t hidden_rows;
	uint16_t *hidden_rounded; /* [max_moe_pairs, F] */
	float *expert_out;		  /* [max_moe_pairs, d] */

	/* cuda_experts.c; nothing of it where no batch has tokens enough */
	m1b_cuda_lane lanes[M1B_CUDA_LANES];
	uint16_t *gathered;				 /* [max_moe_pairs, d] rows of x by place */
	int *host_group;				 /* [E + 1], pinned */
	cudaEvent_t routed, is_gathered; /* host_group, and gathered, are there */

	/* cuda_sample.c: see m1k_sample; host_ is pinned, and all is wiped after each use */
	m1k_draw *draws, *host_draws; /* [max_states] */
	m1k_pick *host_picks;		  /* [max_states] */
	uint64_t *masks, *host_masks; /* [max_states, mask_words] */
	int mask_words;
	/* zeros between two uses */
	m1k_found *found; /* [max_states] */
	m1k_tally *bins;  /* [max_states, M1K_SAMPLE_BINS] */
	/* of n draws with some of the stages: 5 sets of them come, which have 3 to 33 kernels */
	m1b_cuda_recording samplings[M1B_CUDA_RECORDINGS + 1][1 << M1K_STAGES];
} m1b_cuda;

static inline m1b_cuda *
m1b_cuda_of(m1b_backend *b)
{
	return (m1b_cuda *) b;
}

/* cuda_error.c */
/* Keeps the first failure. */
void m1b_cuda_note(m1b_cuda *c, cudaError_t error, const char *doing);
/* Looks whether launching succeeded. */
void m1b_cuda_launched(m1b_cuda *c, const char *doing);
/* The kept failure as an error, M1_OK when there is none. */
m1_status m1b_cuda_status(const m1b_cuda *c, m1_error *err);
/* Any CUDA error as one of ours. */
m1_status m1b_cuda_error(cudaError_t error, const char *doing, m1_error *err);

/* cuda.c */
/* Opens one device as a rank of several. */
m1_status m1b_cuda_open_rank(const m1b_cuda_options *options, int rank, m1b_cuda **out, m1_error *err);
/* Configures it in two: the plan, which allocates nothing and may be given fewer pages, and the rest. */
m1_status m1b_cuda_plan_memory(m1b_cuda *c, const m1b_geometry *g, m1_error *err);
m1_status m1b_cuda_allocate(m1b_cuda *c, m1_pool *loading, m1_error *err);
void m1b_cuda_close(m1b_backend *b);

/* cuda_group.c */
m1_status m1b_cuda_group_open(const m1b_cuda_options *options, m1b_backend **out, m1_error *err);

/* cuda_nccl.c */
m1_status m1b_cuda_comms_create(m1b_cuda *const *ranks, int n, m1_error *err);
/* Ends what waits for other ranks when `abort`. All ranks are to be called; no graph may be left that uses it. */
void m1b_cuda_comm_free(m1b_cuda *c, bool abort);
/*
 * For whoever waits for a GPU since `begin` (m1_now_ms) by asking again and again, because its peers may have failed:
 * whether `state`, the answer to a query, means to go on waiting. Failures are noted: the query's, the communicator's, and
 * that it takes too long.
 */
bool m1b_cuda_keep_waiting(m1b_cuda *c, cudaError_t state, double begin);
/*
 * x [n, width] becomes the sum over all ranks, the same bits on each. Up to M1K_FEW_ROWS rows a row's bits do not depend
 * on the others. Nothing happens on a GPU that is alone.
 */
void m1b_cuda_sum(m1b_cuda *c, float *x, int n, int width);
/* out [n, ranks * width] = the n rows of `width` columns that each rank has at m1b_cuda_own_slice, side by side. */
void m1b_cuda_join(m1b_cuda *c, int n, int width, float *out);
static inline float *
m1b_cuda_own_slice(const m1b_cuda *c, int n, int width)
{
	return c->slices + (size_t) c->rank * (size_t) n * (size_t) width;
}

/* cuda_memory.c */
m1_status m1b_cuda_arena_create(m1b_cuda_arena *arena, size_t bytes, m1_error *err);
void *m1b_cuda_take(m1b_cuda_arena *arena, size_t bytes); /* NULL when it is used up */
size_t m1b_cuda_round(size_t bytes);
/* Pinned memory of the host; sets the pointer at `to`, of whatever type. */
m1_status m1b_cuda_pinned(void *to, size_t bytes, m1_error *err);
/* On the stream; nothing where there are no bytes. From the host, within the device, to the host. */
void m1b_cuda_upload(m1b_cuda *c, void *to, const void *from, size_t bytes, const char *doing);
void m1b_cuda_copy(m1b_cuda *c, void *to, const void *from, size_t bytes, const char *doing);
void m1b_cuda_download(m1b_cuda *c, void *to, const void *from, size_t bytes, const char *doing);
void m1b_cuda_zero(m1b_cuda *c, void *at, size_t bytes, const char *doing);

/* cuda_weights.c */
/* With a pool of its own when `pool` is NULL. */
m1_status m1b_cuda_loader_create(m1b_cuda *c, m1_pool *pool, m1_error *err);
/* Waits until all weights are there and frees what loading needed. */
void m1b_cuda_loader_finish(m1b_cuda *c);
m1_status m1b_cuda_matrix(m1b_backend *b, const m1b_stored_matrix *p, m1b_matrix *out, bool *borrowed, m1_error *err);
float *m1b_cuda_scratch(m1b_backend *b, size_t n, const float *host);
/* Bytes of a row of weights on the device. */
size_t m1b_cuda_row_bytes(m1b_dtype type, int cols);
m1k_matrix m1b_cuda_kernel_matrix(const m1b_matrix *m);

/* cuda_state.c */
m1_status m1b_cuda_states_plan(const m1b_geometry *g, bool tensor_cores, m1b_cuda_plan *plan, m1_error *err);
m1_status m1b_cuda_states_create(m1b_cuda *c, m1_error *err);
void m1b_cuda_states_free(m1b_cuda *c);
m1b_state *m1b_cuda_state_acquire(m1b_backend *b, int n_tokens);
m1b_state *m1b_cuda_state_acquire_from(m1b_backend *b, int n_tokens, const m1b_snapshot *from);
void m1b_cuda_state_trim(m1b_backend *b, m1b_state *state, int n_tokens);
void m1b_cuda_state_release(m1b_backend *b, m1b_state *state);
m1b_snapshot *m1b_cuda_snapshot_take(m1b_backend *b, const m1b_state *state, int n_tokens, m1b_account account);
size_t m1b_cuda_snapshot_cost(const m1b_backend *b, const m1b_state *state, int n_tokens);
void m1b_cuda_snapshot_release(m1b_backend *b, m1b_snapshot *snapshot);
m1b_memory m1b_cuda_memory(const m1b_backend *b);
/* Makes sure that pages for positions [0, n_tokens) are there, on the device's table too; once `uploaded` has happened. */
void m1b_cuda_state_extend(m1b_cuda *c, m1b_state *state, int n_tokens);

/* cuda_step.c */
bool m1b_cuda_begin(m1b_backend *b, const m1b_batch *batch);
void m1b_cuda_end(m1b_backend *b);
m1_status m1b_cuda_read(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err);

/* cuda_graphs.c */
/*
 * true: what r is for has been recorded, and is started. Otherwise, launch it and end the recording, which may have been
 * begun. r may be NULL: then it never is.
 */
bool m1b_cuda_replay(m1b_cuda *c, m1b_cuda_recording *r);
/* Ends it, in two: what was recorded becomes a graph; the graph is started. Both do nothing if nothing was. */
void m1b_cuda_end_recording(m1b_cuda *c);
void m1b_cuda_launch_recorded(m1b_cuda *c);
void m1b_cuda_recordings_free(m1b_cuda *c);

/* cuda_product.c */
void m1b_cuda_linear(m1b_backend *b, const m1b_linear *p);
void m1b_cuda_moe(m1b_backend *b, const m1b_moe *p);

/* cuda_rounded.c */
/* An operation has written floats there: a bf16 copy of what was there before is no longer one. */
void m1b_cuda_wrote(m1b_cuda *c, const float *out);
/* Where an operation that writes n * width floats to `out` should put a bf16 copy, or NULL. */
uint16_t *m1b_cuda_wrote_rounded(m1b_cuda *c, const float *out, int n);
/* x in bf16: as the operation that wrote it left it, or made now. */
const uint16_t *m1b_cuda_rounded(m1b_cuda *c, const float *x, int n, int width);

/* cuda_experts.c */
/* Whether batches of this size and these weights can come that cuda_experts.c is for. */
bool m1b_cuda_experts_planned(const m1b_geometry *g);
/* Rows of a lane's buffers. */
size_t m1b_cuda_expert_rows(const m1b_geometry *g);
m1_status m1b_cuda_experts_create(m1b_cuda *c, m1_error *err);
void m1b_cuda_experts_free(m1b_cuda *c);
bool m1b_cuda_experts_suit(const m1b_cuda *c, const m1b_moe *p);
/* c->expert_out = w2 (silu(w1 x) * w3 x) for all places, once the tokens are routed. */
void m1b_cuda_experts(m1b_cuda *c, const m1b_moe *p);

/* cuda_gemm.c */
m1_status m1b_cuda_gemm_create(void *space, struct m1b_cuda_gemm **out, m1_error *err);
void m1b_cuda_gemm_free(struct m1b_cuda_gemm *gemm);

/* out = x times the transpose of weight, plus out when `add`. */
typedef struct m1b_cuda_multiply
{
	m1k_matrix weight; /* [rows, cols], F32 or BF16 */
	const void *x;	   /* [n, cols], of the weight's type */
	int n;
	bool add;
	float *out;		/* n rows of `rows` floats */
	int out_stride; /* floats from one row to the next */
	int space;		/* number of a work space that no other stream uses: 0 for m1b_cuda.stream */
	cudaStream_t stream;
} m1b_cuda_multiply;

cudaError_t m1b_cuda_gemm(struct m1b_cuda_gemm *gemm, const m1b_cuda_multiply *p);

/* cuda_attention.c */
/* Into how many ranges, at most, a decoding token's keys are divided: see m1k_attention. */
int m1b_cuda_splits(const m1b_geometry *g);
void m1b_cuda_lightning(m1b_backend *b, const m1b_lightning *p);
void m1b_cuda_attention(m1b_backend *b, const m1b_attention *p);

/* cuda_sample.c */
/* Whether it can sample: a vocabulary may be too large. */
bool m1b_cuda_samples(const m1b_cuda *c);
m1_status m1b_cuda_sample_create(m1b_cuda *c, m1_error *err);
void m1b_cuda_sample_free(m1b_cuda *c);
m1_status m1b_cuda_sample(m1b_backend *b, const m1b_sample *p, m1_error *err);

#endif
