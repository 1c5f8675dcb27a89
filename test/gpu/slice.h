/*
 * slice.h - some layers of MiniMax-M1 with random weights of any type, for bench.c.
 *
 * The slice is a lightning and a softmax layer, embedding and head. A toy of the same shape is there for trying the
 * programs where the GPU is emulated. Whatever fails ends the program with a message.
 */
#ifndef M1_TEST_SLICE_H
#define M1_TEST_SLICE_H

#include "backend/cuda/cuda_internal.h"
#include "model/model.h"

#define SLICE_LAYERS 2
#define SLICE_BATCH 64 /* sequences at most */

typedef enum slice_size
{
	SLICE_REAL,
	SLICE_PROFILED, /* what a profiler saves and restores for each kernel: few experts, a short context, a part of the words */
	SLICE_TOY,
} slice_size;

typedef struct slice
{
	m1_model model;
	m1b_dtype type; /* of attention's projections and the experts; the rest is BF16 */
	slice_size size;
	int prefill;	  /* tokens of one step at most */
	float *qkv;		  /* [prefill, H, 3, D] random values, for attention alone */
	float *attention; /* [prefill, H, D] */
	m1_error err;
} slice;

void slice_open(slice *s, m1b_dtype type, slice_size size);
void slice_close(slice *s);
/* Takes a device's memory for it, says so on stderr, and gives it back. */
void slice_plan(m1b_dtype type, slice_size size);

static inline bool
slice_is_toy(const slice *s)
{
	return s->size == SLICE_TOY;
}

static inline m1b_cuda *
slice_cuda(slice *s)
{
	return m1b_cuda_of(s->model.backend);
}

/* Ends the program unless the status is M1_OK. */
void slice_must(slice *s, m1_status status);

/* Weights of one layer's matrices, router apart, with so many experts; a softmax layer has a little fewer. */
double slice_layer_weights(const m1_config *c, double experts);
/* Bytes of the head, and of the embedding. */
size_t slice_head_bytes(const slice *s);

#endif
