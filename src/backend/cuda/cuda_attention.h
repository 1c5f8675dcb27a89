/*
 * cuda_attention.h - lightning and softmax attention.
 */
#ifndef M1_BACKEND_CUDA_CUDA_ATTENTION_H
#define M1_BACKEND_CUDA_CUDA_ATTENTION_H

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"

typedef struct m1b_cuda m1b_cuda;

typedef struct m1b_cuda_attention_memory
{
	float *inv_freq; /* [rotary_dim / 2] */
	float *rope;	 /* [max_tokens, rotary_dim / 2, 2] of the batch's positions */
	float *partial;	 /* [max_states, H, splits, D + 2] */
} m1b_cuda_attention_memory;

void m1b_cuda_attention_want(m1b_cuda *c, m1b_cuda_buffers *all);
m1_status m1b_cuda_attention_create(m1b_cuda *c, m1_error *err);
/* The rotations of the batch's positions, which all softmax layers use. */
void m1b_cuda_rotations(m1b_cuda *c);
void m1b_cuda_lightning(m1b_backend *b, const m1b_lightning *p);
void m1b_cuda_attention(m1b_backend *b, const m1b_attention *p);

#endif
