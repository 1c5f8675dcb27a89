/*
 * cpu_lkernels.c - the gradients of what is done along rows; see cpu_kernels.h. Compiled once per instruction set like
 * cpu_kernels.c.
 */
#include <math.h>

#include "backend/cpu/cpu_kernels.h"
#include "backend/cpu/cpu_rows.h"

static float
inner(const float *x, const float *y, int n)
{
	vf sum = vf_set(0.0f);

	EACH_VECTOR(n, { sum = vf_fma(LOAD(x), LOAD(y), sum); });
	return vf_sum(sum);
}

/* With rho = 1 / RMS and u = dy * weight: dx = rho (u - x rho^2 mean(u * x)). */
static float
norm_back(const float *x, const float *weight, const float *dy, float eps, int n, float *dx)
{
	vf squares = vf_set(0.0f);
	vf along = vf_set(0.0f);

	EACH_VECTOR(n, {
		vf v = LOAD(x);
		squares = vf_fma(v, v, squares);
		along = vf_fma(vf_mul(LOAD(dy), LOAD(weight)), v, along);
	});

	const float rho = 1.0f / sqrtf(vf_sum(squares) / (float) n + eps);
	vf factor = vf_set(rho);
	vf minus = vf_set(-(rho * rho * (vf_sum(along) / (float) n)));

	EACH_VECTOR(n, { STORE(dx, vf_mul(factor, vf_fma(LOAD(x), minus, vf_mul(LOAD(dy), LOAD(weight))))); });
	return rho;
}

static void
add_product(float *out, const float *x, const float *y, float factor, int n)
{
	vf f = vf_set(factor);

	EACH_VECTOR(n, { STORE(out, vf_fma(vf_mul(LOAD(x), LOAD(y)), f, LOAD(out))); });
}

static void
gate_back(const float *u, const float *t, float *dy, float *dt, int n)
{
	vf one = vf_set(1.0f);

	EACH_VECTOR(n, {
		vf s = vf_sigmoid(LOAD(t));
		vf du = vf_mul(LOAD(dy), s);
		STORE(dt, vf_mul(vf_mul(du, LOAD(u)), vf_sub(one, s)));
		STORE(dy, du);
	});
}

/* silu'(z) = s (1 + z (1 - s)) with s = sigmoid(z) */
INLINE vf
silu_slope(vf z, vf s)
{
	vf one = vf_set(1.0f);

	return vf_mul(s, vf_fma(z, vf_sub(one, s), one));
}

static void
silu_back(const float *z, const float *dy, float *out, int n)
{
	EACH_VECTOR(n, {
		vf v = LOAD(z);
		STORE(out, vf_mul(LOAD(dy), silu_slope(v, vf_sigmoid(v))));
	});
}

static void
silu_mul_back(const float *a, const float *b, const float *du, float *da, float *db, int n)
{
	EACH_VECTOR(n, {
		vf v = LOAD(a);
		vf s = vf_sigmoid(v);
		vf d = LOAD(du);
		vf up = LOAD(b);
		STORE(da, vf_mul(vf_mul(d, up), silu_slope(v, s)));
		STORE(db, vf_mul(d, vf_mul(v, s)));
	});
}

static float
exp_sums(float *x, float max, int n, float *weighted)
{
	vf m = vf_set(max);
	vf sum = vf_set(0.0f);
	vf sum_weighted = vf_set(0.0f);
	float tail = 0.0f;
	float tail_weighted = 0.0f;

	EACH_VECTOR(n, {
		vf above = vf_sub(LOAD(x), m);
		vf e = vf_exp(above);
		if (part)
			for (int t = 0; t < left; t++)
			{
				const float d = x[i + t] - max;
				float one[VF_WIDTH];
				vf_store(one, e);
				tail += one[t];
				tail_weighted += one[t] * d;
			}
		else
		{
			sum = vf_add(sum, e);
			sum_weighted = vf_fma(e, above, sum_weighted);
		}
		STORE(x, e);
	});
	*weighted = vf_sum(sum_weighted) + tail_weighted;
	return vf_sum(sum) + tail;
}

const m1b_lkernels M1B_TABLE(m1b_lkernels) = {
	.inner = inner,
	.norm_back = norm_back,
	.add_product = add_product,
	.gate_back = gate_back,
	.silu_back = silu_back,
	.silu_mul_back = silu_mul_back,
	.exp_sums = exp_sums,
};
