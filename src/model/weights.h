/*
 * weights.h - the model's weights as the backend sees them, found by name in a checkpoint and checked against the
 * config.
 */
#ifndef M1_MODEL_WEIGHTS_H
#define M1_MODEL_WEIGHTS_H

#include "backend/backend.h"
#include "files/checkpoint.h"
#include "model/config.h"
#include "model/quantize.h"

typedef struct m1_layer
{
	const float *input_norm; /* [d] */
	const float *post_norm;	 /* [d] */

	/* lightning */
	m1b_matrix qkv;			 /* [H * 3 * D, d], q k v interleaved per head */
	m1b_matrix output_gate;	 /* [H * D, d] */
	const float *inner_norm; /* [H * D] */
	const float *decay;		 /* [H] lambda */

	/* softmax */
	m1b_matrix q;	 /* [H * D, d] */
	m1b_matrix k, v; /* [KV * D, d] */

	m1b_matrix out; /* [d, H * D] */

	m1b_matrix router;	 /* [E, d] */
	m1b_matrix *w1, *w3; /* E matrices [F, d] */
	m1b_matrix *w2;		 /* E matrices [d, F] */

	int slot; /* index among the layers of its kind */
} m1_layer;

typedef struct m1_weights
{
	m1b_matrix embed;		 /* [vocab, d] */
	m1b_matrix head;		 /* [vocab, d]; embed when tied */
	const float *final_norm; /* [d] */
	m1_layer *layers;
	int n_layers;
	uint64_t parameters;

	void **owned; /* made on load, and used by the backend in place */
	size_t n_owned;
	size_t cap_owned;
} m1_weights;

typedef struct m1_weights_size
{
	uint64_t bytes;		 /* of all, in the types that they will be used in */
	size_t matrix_bytes; /* of those that are handed to the backend, a tied head's too */
	size_t whole_bytes;	 /* of those, the ones that devices do not divide */
	size_t matrices;
	size_t vector_bytes;  /* of m1b_ops.scratch for norms and decays */
	bool f32_experts;	  /* of all experts, w1 is F32 */
	bool bf16_experts;	  /* all matrices of all experts are BF16 */
	bool integer_experts; /* of some experts, w1 is quantized to integers */
} m1_weights_size;

/*
 * What loading will ask the backend for: to plan memory before anything is loaded. The error names the missing tensor
 * or the wrong shape.
 */
m1_status m1_weights_measure(const m1_checkpoint *checkpoint, const m1_config *config, m1_weight_format format,
							 m1_weights_size *size, m1_error *err);

/*
 * Loads everything that config asks for; float matrices as `format` says, with that many threads (0 = all cores).
 * What the backend has copied leaves the mapped file's resident memory. The error names the missing tensor or the
 * wrong shape. On failure m1_weights_free is still safe.
 */
m1_status m1_weights_load(const m1_checkpoint *checkpoint, const m1_config *config, m1_weight_format format,
						  int threads, m1b_backend *backend, m1_weights *weights, m1_error *err);
/* Frees the tables, after the backend, which may use what they own. Device memory belongs to the backend. */
void m1_weights_free(m1_weights *weights);

#endif
