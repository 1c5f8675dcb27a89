/*
 * test_qkernels.c - products with packed quantized weights, for every instruction set this processor has and every
 * format: against the stored blocks in double arithmetic, for odd numbers of rows; and the promise that a row's result
 * does not depend on its neighbours.
 */
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blocks/blocks.h"
#include "backend/cpu/cpu_kernels.h"
#include "backend/cpu/cpu_packed.h"

#define K 768 /* three superblocks */
#define MAX_ROWS 11

static const m1b_kernels *sets[4];
static int n_sets;
static const m1b_dtype types[] = {M1B_Q8_0, M1B_Q4_0, M1B_Q4_K, M1B_Q5_K, M1B_Q6_K};

static void
find_sets(void)
{
	sets[n_sets++] = &m1b_kernels_portable;
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		sets[n_sets++] = &m1b_kernels_avx2;
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
		__builtin_cpu_supports("avx512vl"))
	{
		sets[n_sets++] = &m1b_kernels_avx512;
		if (__builtin_cpu_supports("avx512vnni"))
			sets[n_sets++] = &m1b_kernels_avx512vnni;
	}
#endif
}

/* Blocks of random bits, but for the half-precision scales, which are made small. */
static uint8_t *
random_matrix(uint64_t *seed, m1b_dtype type, int rows)
{
	const size_t bytes = m1b_bytes(type, (size_t) rows * K);
	const size_t block = m1b_block_bytes(type);
	uint8_t *w = malloc(bytes);

	assert_non_null(w);
	for (size_t i = 0; i < bytes; i++)
		w[i] = (uint8_t) test_random(seed);
	for (size_t at = 0; at < bytes; at += block)
	{
		const uint16_t scale = m1b_float_to_half(test_random_float(seed) / 64);
		const uint16_t min = m1b_float_to_half(test_random_float(seed) / 64);

		memcpy(w + at + (type == M1B_Q6_K ? 208 : 0), &scale, sizeof scale);
		if (type == M1B_Q4_K || type == M1B_Q5_K)
			memcpy(w + at + 2, &min, sizeof min);
	}
	return w;
}

static uint8_t *
pack(m1b_dtype type, const uint8_t *stored, int rows)
{
	const size_t bytes = m1b_panel_of(type, K).bytes;
	const int panels = (rows + M1B_PANEL_ROWS - 1) / M1B_PANEL_ROWS;
	uint8_t *packed = aligned_alloc(M1B_LINE, (size_t) panels * bytes);

	assert_non_null(packed);
	for (int i = 0; i < panels; i++)
		m1b_pack_panel(type, stored, rows, K, i, packed + (size_t) i * bytes);
	return packed;
}

/* n input rows as floats and quantized. */
typedef struct inputs
{
	int n;
	float x[MAX_ROWS][K];
	void *q[MAX_ROWS];
} inputs;

static inputs *
random_inputs(uint64_t *seed, int n)
{
	inputs *in = calloc(1, sizeof *in);

	assert_non_null(in);
	in->n = n;
	for (int t = 0; t < n; t++)
	{
		for (int i = 0; i < K; i++)
			in->x[t][i] = test_random_float(seed) * (i % 64 < 32 ? 1.0f : 30.0f);
		in->q[t] = aligned_alloc(M1B_LINE, m1b_qrow_bytes(K));
		assert_non_null(in->q[t]);
		memset(in->q[t], 0xee, m1b_qrow_bytes(K));
	}
	memset(in->x[0], 0, 64 * sizeof(float)); /* two groups of zeros */
	return in;
}

static void
free_inputs(inputs *in)
{
	for (int t = 0; t < in->n; t++)
		free(in->q[t]);
	free(in);
}

/* The product, and the sum of its terms' magnitudes, which bounds the error of adding them in floats. */
static double
reference(const float *w, const m1b_qrow *row, double *magnitude)
{
	double sum = 0;

	*magnitude = 0;
	for (int i = 0; i < K; i++)
	{
		double term = (double) w[i] * row->q[i] * row->scale[i / M1B_GROUP];

		sum += term;
		*magnitude += fabs(term);
	}
	return sum;
}

static void
check_product(const m1b_kernels *k, m1b_dtype type, int rows, int n, uint64_t *seed)
{
	uint8_t *stored = random_matrix(seed, type, rows);
	uint8_t *packed = pack(type, stored, rows);
	inputs *in = random_inputs(seed, n);
	float *out = malloc((size_t) n * (size_t) (rows + 1) * sizeof *out);
	float *out_rows[MAX_ROWS];
	float w[K];

	assert_non_null(out);
	for (int t = 0; t < n; t++)
	{
		k->packed->quantize(in->x[t], K, in->q[t]);
		out_rows[t] = out + t * (rows + 1);
		out_rows[t][rows] = 12345.0f;
	}
	k->packed->qdot(&(m1b_qdot){.x = in->q, .n = n, .w = packed, .type = type, .k = K, .row1 = rows, .out = out_rows});
	for (int j = 0; j < rows; j++)
	{
		m1b_dequantize(type, stored + (size_t) j * m1b_bytes(type, K), K, w);
		for (int t = 0; t < n; t++)
		{
			m1b_qrow row = m1b_qrow_at(in->q[t], K);
			double magnitude;
			double want = reference(w, &row, &magnitude);

			if (!(fabs(out_rows[t][j] - want) <= 1e-6 + 2e-6 * magnitude))
				fail_msg("%s %s, row %d of %d, input %d of %d: %.7g instead of %.7g", k->name, m1b_dtype_name(type), j,
						 rows, t, n, out_rows[t][j], want);
		}
	}
	for (int t = 0; t < n; t++)
		assert_true(out_rows[t][rows] == 12345.0f); /* nothing is written beyond the last row */
	free(out);
	free_inputs(in);
	free(packed);
	free(stored);
}

static void
test_products(void **state)
{
	uint64_t seed = 7;

	(void) state;
	for (int s = 0; s < n_sets; s++)
		for (size_t i = 0; i < sizeof types / sizeof *types; i++)
			for (int n = 1; n <= MAX_ROWS; n++)
				check_product(sets[s], types[i], 1 + (int) (test_random(&seed) % 40), n, &seed);
}

/* Extreme weights and inputs: the sums of a group must not saturate. */
static void
test_extremes(void **state)
{
	(void) state;
	for (int s = 0; s < n_sets; s++)
		for (int sign = -1; sign <= 1; sign += 2)
		{
			uint8_t stored[34 * K / 32];
			uint8_t *packed;
			float x[K];
			float y;
			float *out = &y;
			void *q = aligned_alloc(M1B_LINE, m1b_qrow_bytes(K));
			const uint16_t one = m1b_float_to_half(1.0f);

			memset(stored, sign < 0 ? 0x80 : 0x7f, sizeof stored);
			for (size_t b = 0; b < K / 32; b++)
				memcpy(stored + b * 34, &one, sizeof one);
			for (int i = 0; i < K; i++)
				x[i] = 127.0f;
			packed = pack(M1B_Q8_0, stored, 1);
			sets[s]->packed->quantize(x, K, q);
			sets[s]->packed->qdot(
				&(m1b_qdot){.x = &q, .n = 1, .w = packed, .type = M1B_Q8_0, .k = K, .row1 = 1, .out = &out});
			assert_true(fabsf(y - (sign < 0 ? -128.0f : 127.0f) * 127.0f * K) < 1.0f);
			free(packed);
			free(q);
		}
}

static void
test_rows_do_not_depend_on_neighbours(void **state)
{
	uint64_t seed = 11;

	(void) state;
	for (int s = 0; s < n_sets; s++)
		for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		{
			uint8_t *stored = random_matrix(&seed, types[i], 32);
			uint8_t *packed = pack(types[i], stored, 32);
			inputs *in = random_inputs(&seed, MAX_ROWS);
			float together[MAX_ROWS][32];
			float alone[32];
			float *out_rows[MAX_ROWS];
			float *out = alone;

			for (int t = 0; t < MAX_ROWS; t++)
			{
				sets[s]->packed->quantize(in->x[t], K, in->q[t]);
				out_rows[t] = together[t];
			}
			sets[s]->packed->qdot(&(m1b_qdot){
				.x = in->q, .n = MAX_ROWS, .w = packed, .type = types[i], .k = K, .row1 = 32, .out = out_rows});
			for (int t = 0; t < MAX_ROWS; t++)
			{
				sets[s]->packed->qdot(&(m1b_qdot){
					.x = in->q + t, .n = 1, .w = packed, .type = types[i], .k = K, .row1 = 32, .out = &out});
				assert_memory_equal(alone, together[t], sizeof alone);
			}
			free_inputs(in);
			free(packed);
			free(stored);
		}
}

/* Quantized rows: values to half a step, both rows together to half a 254th of one; zeros stay zeros. */
static void
test_quantized_inputs(void **state)
{
	uint64_t seed = 3;

	(void) state;
	for (int s = 0; s < n_sets; s++)
	{
		inputs *in = random_inputs(&seed, 2);
		m1b_qrow first = m1b_qrow_at(in->q[0], K);
		m1b_qrow rest = m1b_qrow_at(in->q[1], K);

		sets[s]->packed->quantize(in->x[0], K, in->q[0]);
		sets[s]->packed->quantize_rest(in->x[0], K, in->q[0], in->q[1]);
		for (int i = 0; i < K; i++)
		{
			const float step = first.scale[i / M1B_GROUP];
			const float value = step * first.q[i];

			assert_true(fabsf(in->x[0][i] - value) <= step * 0.5001f);
			assert_true(fabsf(in->x[0][i] - value - rest.scale[i / M1B_GROUP] * rest.q[i]) <= step * (0.51f / 254));
		}
		for (int g = 0; g < K / 16; g++)
		{
			int sum = 0;

			for (int i = 0; i < 16; i++)
				sum += first.q[g * 16 + i];
			assert_int_equal(first.minus_sum16[g], -sum);
		}
		assert_true(first.scale[0] == 0.0f && first.q[5] == 0);
		free_inputs(in);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_products),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_rows_do_not_depend_on_neighbours),
		cmocka_unit_test(test_quantized_inputs),
	};

	find_sets();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
