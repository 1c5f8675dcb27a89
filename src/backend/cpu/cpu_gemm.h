/*
 * cpu_gemm.h - products whose right side is read along its rows, of any size and on all threads: what gradients are
 * made of.
 */
#ifndef M1_BACKEND_CPU_CPU_GEMM_H
#define M1_BACKEND_CPU_CPU_GEMM_H

#include "backend/cpu/cpu_internal.h"

/*
 * c[i][j] = sum_r a[i * a_row + r * a_col] * b[r][j], or that added to c: one chain of multiply-adds for each element,
 * in the order of r, begun at 0 or at c.
 */
typedef struct m1b_gemm
{
	int m, n, k;
	const float *a;
	size_t a_row, a_col;
	const float *b;			  /* [k, n] */
	const m1b_matrix *weight; /* instead of b: [k, n] of any type */
	size_t b_row;			  /* of b */
	float *c;
	size_t c_row;
	bool add;
	int first_tile; /* set by m1b_cpu_gemms */
} m1b_gemm;

#define M1B_GEMM_ROWS 64		  /* of a tile of c */
#define M1B_GEMM_WIDENED_ROWS 512 /* of one whose right side is made floats first */
#define M1B_GEMM_COLUMNS 128	  /* a multiple of what a scale is for, in every weight type */
#define M1B_GEMM_DEPTH 128		  /* of a and b at a time */

/* All of them in one loop; none reads what another writes. */
void m1b_cpu_gemms(m1b_cpu *c, m1b_gemm *list, int n);

#endif
