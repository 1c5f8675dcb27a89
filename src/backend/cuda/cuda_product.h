/*
 * cuda_product.h - linear, and experts.
 */
#ifndef M1_BACKEND_CUDA_CUDA_PRODUCT_H
#define M1_BACKEND_CUDA_CUDA_PRODUCT_H

#include <stdint.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_gemm.h"
#include "backend/cuda/cuda_memory.h"

typedef struct m1b_cuda m1b_cuda;

typedef struct m1b_cuda_products
{
	uint16_t *expanded;	  /* some rows of quantized weights, as bf16 */
	uint16_t *head_parts; /* [3][rows, d]: some of the head's rows in three bf16 parts */
	float *head_sums;	  /* [3][rows, vocab of this GPU]: what each part gives */
	bool told;			  /* that the library lacks a product */
} m1b_cuda_products;

/* Tokens by expert (m1k_route), and what the experts' products give. */
typedef struct m1b_cuda_routed
{
	float *scores;			  /* [max_tokens, E] */
	int *choice;			  /* [max_moe_pairs] */
	float *weight;			  /* [max_moe_pairs] */
	int *group;				  /* [E + 1] */
	int *tiles;				  /* [E + 1] */
	int *place;				  /* [max_moe_pairs] */
	int *token;				  /* [max_moe_pairs] */
	float *hidden;			  /* [pairs of few rows, or of all where there are no tensor cores; F] */
	uint16_t *hidden_rounded; /* [max_moe_pairs, F] */
	float *out;				  /* [max_moe_pairs, d] */
} m1b_cuda_routed;

/* By cuBLASLt, or by our own kernel where the library has nothing for it; rows of the result lie side by side. */
void m1b_cuda_multiply_many(m1b_cuda *c, const m1b_cuda_multiply *p);
void m1b_cuda_products_want(m1b_cuda *c, m1b_cuda_buffers *all);
void m1b_cuda_linear(m1b_backend *b, const m1b_linear *p);
void m1b_cuda_moe(m1b_backend *b, const m1b_moe *p);

#endif
