/*
 * cpu_rows.h - what kernels that walk along rows share: exponentials, and loops over vectors with a rest. For files
 * that are compiled once per instruction set, see cpu_isa.h.
 */
#ifndef M1_BACKEND_CPU_CPU_ROWS_H
#define M1_BACKEND_CPU_CPU_ROWS_H

#include "backend/cpu/cpu_isa.h"

/* exp(x) to about 2 ulp for x in [-87, 88]; 0 below (so that a masked score of -inf vanishes). */
INLINE vf
vf_exp(vf x)
{
	const vf floor_x = vf_set(-87.0f);
	vf clamped = vf_max(x, floor_x);
	vf n = vf_round(vf_mul(clamped, vf_set(1.44269504088896341f)));
	/* ln 2 in two parts, so that r is exact to the last bit */
	vf r = vf_fma(n, vf_set(-0.693359375f), clamped);
	vf p = vf_set(1.9875691500e-4f);

	r = vf_fma(n, vf_set(2.12194440e-4f), r);
	p = vf_fma(p, r, vf_set(1.3981999507e-3f));
	p = vf_fma(p, r, vf_set(8.3334519073e-3f));
	p = vf_fma(p, r, vf_set(4.1665795894e-2f));
	p = vf_fma(p, r, vf_set(1.6666665459e-1f));
	p = vf_fma(p, r, vf_set(5.0000001201e-1f));
	p = vf_fma(vf_mul(r, r), p, vf_add(r, vf_set(1.0f)));
	return vf_keep_if_ge(vf_scale2(p, n), x, floor_x);
}

/* 1 / (1 + exp(-x)); for very negative x the quotient underflows to 0 as it should */
INLINE vf
vf_sigmoid(vf x)
{
	vf one = vf_set(1.0f);
	/* exp overflows above 88: sigmoid is below 1e-38 there */
	vf minus = vf_sub(vf_set(0.0f), vf_max(x, vf_set(-87.0f)));

	return vf_div(one, vf_add(one, vf_exp(minus)));
}

/* Runs body for each vector of [0, n): N elements at i, LOAD and STORE fitting. */
#define EACH_VECTOR(n, body)                       \
	do                                             \
	{                                              \
		int i = 0;                                 \
		for (; i + VF_WIDTH <= (n); i += VF_WIDTH) \
		{                                          \
			const bool part = false;               \
			const int left = VF_WIDTH;             \
			body                                   \
		}                                          \
		if (i < (n))                               \
		{                                          \
			const bool part = true;                \
			const int left = (n) -i;               \
			body                                   \
		}                                          \
	} while (0)
#define LOAD(p) (part ? vf_load_n((p) + i, left) : vf_load((p) + i))
#define STORE(p, x) (part ? vf_store_n((p) + i, (x), left) : vf_store((p) + i, (x)))

#endif
