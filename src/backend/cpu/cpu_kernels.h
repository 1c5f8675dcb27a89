/*
 * cpu_kernels.h - the inner loops of the CPU backend, one table per instruction set.
 *
 * cpu_kernels.c, cpu_qkernels.c and cpu_lkernels.c are compiled once per instruction set (M1_ISA); the
 * table is chosen at run time. Kernels are single-threaded, allocate nothing and accept unaligned
 * pointers. Every output element is accumulated in one fixed order per instruction
 * set, whatever the tile it falls in: that is what makes a row's result independent
 * of its batch.
 */
#ifndef M1_BACKEND_CPU_CPU_KERNELS_H
#define M1_BACKEND_CPU_CPU_KERNELS_H

#include "backend/backend.h"

/* out[t][j] = sum_k x[t][k] * w[j][k] for t < n and j in [row0, row1) */
typedef struct m1b_dot
{
	const float *const *x; /* n pointers to rows of k floats */
	int n;
	const void *w; /* [*, k] of w_type, a float type or F8_E4M3 (with whole blocks); rows w_stride elements apart */
	m1b_dtype w_type;
	size_t w_stride;
	int k;
	int row0, row1;
	float *const *out; /* n pointers; element j is written at out[t][j] */
} m1b_dot;

/* c[i][j] = scale * c[i][j] + sum_r a[i * a_row + r * a_col] * b[r][j]; with scale 0, c is only written */
typedef struct m1b_mac
{
	int m, n, k;
	const float *a;
	size_t a_row, a_col;
	const void *b; /* of b_type, M1B_F32 or M1B_BF16 */
	m1b_dtype b_type;
	size_t b_row;
	const void *next; /* NULL, or where the b of the next product lies, as large as this one: it is fetched meanwhile */
	float *c;
	size_t c_row;
	float scale;
} m1b_mac;

/*
 * out[t][j] = sum_k x[t][k] * w[j][k] for t < n and j in [row0, row1), with packed weights and inputs that
 * .quantize made (cpu_packed.h). row0 is a multiple of M1B_PANEL_ROWS, row1 too unless it is the last row.
 */
typedef struct m1b_qdot
{
	void *const *x; /* n quantized rows of k columns */
	int n;
	const void *w; /* panels */
	m1b_dtype type;
	int k;
	int row0, row1;
	float *const *out;
} m1b_qdot;

/* The weights of a group of packed columns [32 * group, + 32) of all 16 rows of a panel, as floats: to[row][32]. */
typedef struct m1b_widen
{
	m1b_dtype type;
	const void *panel;
	int cols; /* of the matrix */
	int group;
	float *to;
	size_t to_row; /* floats */
} m1b_widen;

typedef struct m1b_qkernels
{
	void (*qdot)(const m1b_qdot *p);
	void (*widen)(const m1b_widen *p);
	/* A row of n floats to 8 bits; n is a multiple of 32. */
	void (*quantize)(const float *x, int n, void *to);
	/* What quantizing x to `of` left over, as another row: the two products' sum is exact to 15 bits. */
	void (*quantize_rest)(const float *x, int n, const void *of, void *to);
} m1b_qkernels;

/* Gradients of what is done along rows. */
typedef struct m1b_lkernels
{
	float (*inner)(const float *x, const float *y, int n); /* sum of x * y */
	/* y = RMS(x) * weight; returns 1 / RMS. dx is not dy. */
	float (*norm_back)(const float *x, const float *weight, const float *dy, float eps, int n, float *dx);
	void (*add_product)(float *out, const float *x, const float *y, float factor, int n); /* out += x * y * factor */
	/* y = u * sigmoid(t): dt, and du in place of dy */
	void (*gate_back)(const float *u, const float *t, float *dy, float *dt, int n);
	/* out = dy * silu'(z); out may be dy */
	void (*silu_back)(const float *z, const float *dy, float *out, int n);
	/* u = silu(a) * b */
	void (*silu_mul_back)(const float *a, const float *b, const float *du, float *da, float *db, int n);
	/* x = exp(x - max); returns their sum, and in *weighted that of (x - max) exp(x - max) */
	float (*exp_sums)(float *x, float max, int n, float *weighted);
} m1b_lkernels;

typedef struct m1b_kernels
{
	const char *name; /* "AVX-512" */
	void (*dot)(const m1b_dot *p);
	void (*mac)(const m1b_mac *p);
	/* One token of lightning attention: s = decay * s + k v^T, out = q s; s is [D, D] */
	void (*lightning_step)(float *s, const float *q, const float *k, const float *v, float decay, int head_dim,
						   float *out);
	/* out = RMS(x) * weight; x may be out */
	void (*rms_norm)(const float *x, const float *weight, float eps, int n, float *out);
	void (*scale_add)(float *out, const float *x, const float *y, float alpha, float beta, int n);
	void (*silu)(float *x, int n);
	void (*silu_mul)(float *x, const float *y, int n);	  /* x = silu(x) * y */
	void (*sigmoid_mul)(float *x, const float *y, int n); /* x = x * sigmoid(y) */
	void (*scale)(float *x, float factor, int n);
	/* x = exp(x - max), returns the sum; max is the running maximum */
	float (*exp_sum)(float *x, float max, int n);
	float (*max)(const float *x, int n);
	const m1b_qkernels *packed;
	const m1b_lkernels *learning;
} m1b_kernels;

extern const m1b_kernels m1b_kernels_portable;
extern const m1b_qkernels m1b_qkernels_portable;
extern const m1b_lkernels m1b_lkernels_portable;
#if defined(__x86_64__)
extern const m1b_kernels m1b_kernels_avx2;
extern const m1b_kernels m1b_kernels_avx512;
extern const m1b_kernels m1b_kernels_avx512vnni;
extern const m1b_qkernels m1b_qkernels_avx2;
extern const m1b_qkernels m1b_qkernels_avx512;
extern const m1b_qkernels m1b_qkernels_avx512vnni;
extern const m1b_lkernels m1b_lkernels_avx2;
extern const m1b_lkernels m1b_lkernels_avx512;
extern const m1b_lkernels m1b_lkernels_avx512vnni;
#endif

#endif
