/*
 * test_kernels.c - the inner loops of every instruction set this processor has, against plain
 * double arithmetic, for odd sizes and all weight types; and the promise that a row's result
 * does not depend on its neighbours.
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blocks/blocks.h"
#include "backend/cpu/cpu_kernels.h"

static const m1b_kernels *sets[3];
static int n_sets;

static void
find_sets(void)
{
	sets[n_sets++] = &m1b_kernels_portable;
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		sets[n_sets++] = &m1b_kernels_avx2;
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
		__builtin_cpu_supports("avx512vl"))
		sets[n_sets++] = &m1b_kernels_avx512;
#endif
}

static void
assert_near(double got, double want, double tolerance, const char *what)
{
	if (!(fabs(got - want) <= tolerance))
		fail_msg("%s: %.9g instead of %.9g", what, got, want);
}

/* A weight of any type, and its value as a float. */
static void
store_weight(void *w, m1b_dtype type, size_t i, float value, float *stored)
{
	uint32_t bits;
	uint16_t half;

	memcpy(&bits, &value, sizeof bits);
	if (type == M1B_F32)
	{
		memcpy((char *) w + 4 * i, &value, 4);
		*stored = value;
		return;
	}
	if (type == M1B_BF16)
	{
		half = (uint16_t) (bits >> 16);
		bits &= 0xffff0000u;
	}
	else
	{
		/* normal halves only: sign, exponent moved by the difference of biases, ten bits of mantissa */
		int exponent = (int) (bits >> 23 & 255) - 127 + 15;

		if (exponent < 1)
			exponent = 1;
		half = (uint16_t) (bits >> 16 & 0x8000u) | (uint16_t) (exponent << 10) | (uint16_t) (bits >> 13 & 1023);
		bits = (bits & 0x80000000u) | (uint32_t) (exponent + 112) << 23 | (bits & 0x7fe000u);
	}
	memcpy((char *) w + 2 * i, &half, 2);
	memcpy(stored, &bits, sizeof bits);
}

/* Blocks of any numbers but NaN, with scales of any size from 2^-8. */
static void
store_e4m3(uint8_t *w, size_t n, uint64_t *seed, float *stored)
{
	for (size_t at = 0; at < n / 128 * 132; at += 132)
	{
		const float scale = ldexpf(1.0f + fabsf(test_random_float(seed)), -(int) (test_random(seed) % 8) - 1);

		memcpy(w + at, &scale, 4);
		for (size_t i = 4; i < 132; i++)
			do
				w[at + i] = (uint8_t) test_random(seed);
			while ((w[at + i] & 0x7f) == 0x7f);
	}
	m1b_dequantize(M1B_F8_E4M3, w, n, stored);
}

static void
check_dot(const m1b_kernels *k, m1b_dtype type, int n, int rows, int cols)
{
	uint64_t seed = 77 + (uint64_t) (n * 1000 + rows * 10 + cols);
	float *x = test_random_floats(&seed, (size_t) n * (size_t) cols);
	float *stored = malloc((size_t) rows * (size_t) cols * sizeof *stored);
	char *w = malloc((size_t) rows * (size_t) cols * 4 + 1);
	float *out = malloc((size_t) n * (size_t) rows * sizeof *out);
	const float *x_rows[32];
	float *out_rows[32];
	m1b_dot p = {.x = x_rows,
				 .n = n,
				 .w = w + 1, /* unaligned, as a file may be */
				 .w_type = type,
				 .w_stride = (size_t) cols,
				 .k = cols,
				 .row1 = rows,
				 .out = out_rows};

	if (type == M1B_F8_E4M3)
		store_e4m3((uint8_t *) w + 1, (size_t) rows * (size_t) cols, &seed, stored);
	else
		for (size_t i = 0; i < (size_t) rows * (size_t) cols; i++)
			store_weight(w + 1, type, i, test_random_float(&seed), &stored[i]);
	for (int t = 0; t < n; t++)
	{
		x_rows[t] = x + (size_t) t * (size_t) cols;
		out_rows[t] = out + (size_t) t * (size_t) rows;
	}
	memset(out, 0xff, (size_t) n * (size_t) rows * sizeof *out); /* NaN everywhere */
	k->dot(&p);
	for (int t = 0; t < n; t++)
		for (int j = 0; j < rows; j++)
		{
			double want = 0;

			for (int i = 0; i < cols; i++)
				want += (double) x_rows[t][i] * stored[(size_t) j * (size_t) cols + (size_t) i];
			/* numbers of F8_E4M3 are up to 448 */
			assert_near(out_rows[t][j], want, (type == M1B_F8_E4M3 ? 448 : 1) * (1e-5 * sqrt(cols) + 1e-6), k->name);
		}

	/* each row alone, and any cut of the outputs, gives the same bits */
	for (int t = 0; t < n; t++)
	{
		float alone[64];
		float *alone_row = alone;
		m1b_dot one = p;

		one.x = &x_rows[t];
		one.n = 1;
		one.out = &alone_row;
		one.row1 = rows / 3;
		k->dot(&one);
		one.row0 = rows / 3;
		one.row1 = rows;
		k->dot(&one);
		assert_memory_equal(alone, out_rows[t], (size_t) rows * sizeof *alone);
	}
	free(x);
	free(stored);
	free(w);
	free(out);
}

static void
test_dot(void **state)
{
	static const int ns[] = {1, 2, 3, 5, 6, 7, 13};
	static const int sizes[][2] = {{1, 1}, {4, 16}, {7, 33}, {9, 128}, {40, 95}, {64, 129}};

	(void) state;
	for (int s = 0; s < n_sets; s++)
		for (int type = M1B_F32; type <= M1B_BF16; type++)
			for (size_t i = 0; i < sizeof ns / sizeof *ns; i++)
				for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
					check_dot(sets[s], (m1b_dtype) type, ns[i], sizes[j][0], sizes[j][1]);
	for (int s = 0; s < n_sets; s++)
		for (size_t i = 0; i < sizeof ns / sizeof *ns; i++)
			for (int rows = 1; rows < 40; rows += 6)
				check_dot(sets[s], M1B_F8_E4M3, ns[i], rows, 128 * (1 + rows % 4));
}

static void
check_mac(const m1b_kernels *k, int m, int n, int depth, m1b_dtype type, float scale, bool transposed)
{
	uint64_t seed = 5 + (uint64_t) (m * 100 + n * 10 + depth);
	float *a = test_random_floats(&seed, (size_t) m * (size_t) depth);
	float *b = test_random_floats(&seed, (size_t) depth * (size_t) n);
	char *stored = malloc((size_t) depth * (size_t) n * sizeof *b + 1);
	float *c = test_random_floats(&seed, (size_t) m * (size_t) n);
	float *before = malloc((size_t) m * (size_t) n * sizeof *before);
	size_t a_row = transposed ? 1 : (size_t) depth;
	size_t a_col = transposed ? (size_t) m : 1;

	for (size_t i = 0; i < (size_t) depth * (size_t) n; i++)
		store_weight(stored + 1, type, i, b[i], &b[i]);
	memcpy(before, c, (size_t) m * (size_t) n * sizeof *before);
	if (scale == 0.0f)
		memset(c, 0xff, (size_t) m * (size_t) n * sizeof *c);
	k->mac(&(m1b_mac){.m = m,
					  .n = n,
					  .k = depth,
					  .a = a,
					  .a_row = a_row,
					  .a_col = a_col,
					  .b = stored + 1,
					  .b_type = type,
					  .b_row = (size_t) n,
					  .c = c,
					  .c_row = (size_t) n,
					  .scale = scale});
	for (int i = 0; i < m; i++)
		for (int j = 0; j < n; j++)
		{
			size_t at = (size_t) i * (size_t) n + (size_t) j;
			double want = scale == 0.0f ? 0.0 : (double) scale * before[at];

			for (int r = 0; r < depth; r++)
				want += (double) a[(size_t) i * a_row + (size_t) r * a_col] * b[(size_t) r * (size_t) n + (size_t) j];
			assert_near(c[at], want, 1e-5 * sqrt(depth) + 1e-6, k->name);
		}
	free(a);
	free(b);
	free(stored);
	free(c);
	free(before);
}

static void
test_mac(void **state)
{
	static const int sizes[][3] = {{1, 1, 1}, {6, 16, 64}, {7, 33, 5}, {13, 70, 64}, {32, 32, 17}, {5, 128, 3}};

	(void) state;
	for (int s = 0; s < n_sets; s++)
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
			for (int variant = 0; variant < 8; variant++)
				check_mac(sets[s], sizes[i][0], sizes[i][1], sizes[i][2], variant & 4 ? M1B_BF16 : M1B_F32,
						  variant & 1 ? 0.75f : 0.0f, variant & 2);
}

static void
test_activations(void **state)
{
	(void) state;
	for (int s = 0; s < n_sets; s++)
		for (int n = 1; n < 40; n += 3)
		{
			float x[40], silu[40], mul[40], gate[40];
			uint64_t seed = (uint64_t) n;

			for (int i = 0; i < n; i++)
			{
				x[i] = 30.0f * test_random_float(&seed);
				silu[i] = mul[i] = x[i];
				gate[i] = 2.0f;
			}
			if (n > 2)
			{
				silu[0] = mul[0] = x[0] = -200.0f;
				silu[1] = mul[1] = x[1] = 200.0f;
			}
			sets[s]->silu(silu, n);
			sets[s]->silu_mul(mul, gate, n);
			sets[s]->sigmoid_mul(gate, x, n);
			for (int i = 0; i < n; i++)
			{
				double sigmoid = 1.0 / (1.0 + exp(-(double) x[i]));

				assert_near(silu[i], x[i] * sigmoid, 1e-5, "silu");
				assert_near(mul[i], 2 * x[i] * sigmoid, 2e-5, "silu_mul");
				assert_near(gate[i], 2 * sigmoid, 1e-6, "sigmoid_mul");
			}
		}
}

static void
test_softmax_parts(void **state)
{
	(void) state;
	for (int s = 0; s < n_sets; s++)
		for (int n = 1; n < 70; n += 7)
		{
			float x[70], e[70];
			uint64_t seed = (uint64_t) n;
			double want = 0;
			float max = -INFINITY;
			float sum;

			for (int i = 0; i < n; i++)
			{
				x[i] = e[i] = i % 5 == 4 ? -INFINITY : 20.0f * test_random_float(&seed);
				max = x[i] > max ? x[i] : max;
			}
			assert_true(sets[s]->max(x, n) == max);
			sum = sets[s]->exp_sum(e, max, n);
			for (int i = 0; i < n; i++)
			{
				assert_near(e[i], exp((double) x[i] - max), 1e-6, "exp");
				want += exp((double) x[i] - max);
			}
			if (n > 4)
				assert_true(e[4] == 0.0f); /* a masked key has no weight at all */
			assert_near(sum, want, 1e-5, "exp_sum");
		}
}

static void
test_rms_norm(void **state)
{
	(void) state;
	for (int s = 0; s < n_sets; s++)
		for (int n = 1; n < 200; n += 13)
		{
			uint64_t seed = (uint64_t) n;
			float *x = test_random_floats(&seed, (size_t) n);
			float *w = test_random_floats(&seed, (size_t) n);
			float *out = test_random_floats(&seed, (size_t) n);
			double sum = 0;

			for (int i = 0; i < n; i++)
				sum += (double) x[i] * x[i];
			sets[s]->rms_norm(x, w, 1e-5f, n, out);
			for (int i = 0; i < n; i++)
				assert_near(out[i], x[i] / sqrt(sum / n + 1e-5) * w[i], 1e-5, "rms_norm");
			free(x);
			free(w);
			free(out);
		}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dot),			  cmocka_unit_test(test_mac),	   cmocka_unit_test(test_activations),
		cmocka_unit_test(test_softmax_parts), cmocka_unit_test(test_rms_norm),
	};

	find_sets();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
