/* test_blocks.c - stored weight formats: sizes, and blocks whose values were worked out by hand. */
#include "testing.h"

#include <math.h>
#include <string.h>

#include "blocks/blocks.h"

static void
test_sizes(void **state)
{
	(void) state;
	assert_int_equal(m1b_bytes(M1B_F32, 5), 20);
	assert_int_equal(m1b_bytes(M1B_BF16, 5), 10);
	assert_int_equal(m1b_bytes(M1B_Q8_0, 64), 68);
	assert_int_equal(m1b_bytes(M1B_Q4_0, 64), 36);
	assert_int_equal(m1b_bytes(M1B_Q4_K, 512), 288);
	assert_int_equal(m1b_bytes(M1B_Q5_K, 256), 176);
	assert_int_equal(m1b_bytes(M1B_Q6_K, 256), 210);
	assert_int_equal(m1b_bytes(M1B_F8_E4M3, 256), 264);
	assert_true(m1b_is_quantized(M1B_Q6_K) && !m1b_is_quantized(M1B_BF16));
}

static void
test_halves(void **state)
{
	(void) state;
	for (uint32_t h = 0; h < 65536; h++)
	{
		float x = m1b_half_to_float((uint16_t) h);

		if (isnan(x))
			assert_true((h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0 && isnan(m1b_half_to_float(m1b_float_to_half(x))));
		else
			assert_int_equal(m1b_float_to_half(x), h);
	}
	assert_true(m1b_half_to_float(0x3c00) == 1.0f && m1b_half_to_float(0xc000) == -2.0f);
	assert_true(m1b_half_to_float(1) == 0x1p-24f && isinf(m1b_half_to_float(0x7c00)));
	/* halfway cases go to the even neighbour */
	assert_int_equal(m1b_float_to_half(1.0f + 0x1p-11f), 0x3c00);
	assert_int_equal(m1b_float_to_half(1.0f + 0x1.8p-10f), 0x3c02);
	assert_int_equal(m1b_float_to_half(65520.0f), 0x7c00);
	assert_int_equal(m1b_float_to_half(0x1p-26f), 0);
}

static float
float_of_bits(uint32_t bits)
{
	float x;

	memcpy(&x, &bits, sizeof x);
	return x;
}

static void
test_bf16(void **state)
{
	(void) state;
	for (uint32_t h = 0; h < 65536; h++)
	{
		const float x = float_of_bits(h << 16);

		if (isnan(x))
			assert_int_equal(m1b_float_to_bf16(x) & 0xffbf, h & 0xffbf); /* made quiet */
		else
		{
			assert_int_equal(m1b_float_to_bf16(x), h);
			/* halfway cases go to the even neighbour, others to the nearer one; infinity has none */
			if (!isinf(x))
			{
				assert_int_equal(m1b_float_to_bf16(float_of_bits(h << 16 | 0x7fff)), h);
				assert_int_equal(m1b_float_to_bf16(float_of_bits(h << 16 | 0x8000)), h + h % 2);
				assert_int_equal(m1b_float_to_bf16(float_of_bits(h << 16 | 0x8001)), h + 1);
			}
		}
	}
	assert_int_equal(m1b_float_to_bf16(float_of_bits(0x7f800001)), 0x7fc0);
	assert_int_equal(m1b_float_to_bf16(float_of_bits(0xffffffff)), 0xffff);
}

/* The number of that code, by the definition of the format. */
static float
e4m3(int code)
{
	const int exponent = code >> 3 & 15;
	const int mantissa = code & 7;
	const float x = exponent == 0 ? ldexpf((float) mantissa, -9) : ldexpf((float) (8 + mantissa), exponent - 10);

	return code & 0x80 ? -x : x;
}

static void
test_eights(void **state)
{
	(void) state;
	for (int code = 0; code < 256; code++)
	{
		if ((code & 0x7f) == 0x7f)
			assert_true(isnan(m1b_e4m3_to_float((uint8_t) code)));
		else
		{
			assert_true(m1b_e4m3_to_float((uint8_t) code) == e4m3(code));
			assert_int_equal(m1b_float_to_e4m3(e4m3(code)), code);
		}
	}
	/* what lies between two numbers goes to the nearer one, and from the middle to the even one */
	for (int code = 0; code < 0x7e; code++)
	{
		const float low = e4m3(code);
		const float high = e4m3(code + 1);
		const float middle = 0.5f * (low + high);

		assert_int_equal(m1b_float_to_e4m3(middle), code + code % 2);
		assert_int_equal(m1b_float_to_e4m3(nextafterf(middle, low)), code);
		assert_int_equal(m1b_float_to_e4m3(nextafterf(middle, high)), code + 1);
		assert_int_equal(m1b_float_to_e4m3(-middle), 0x80 | (code + code % 2));
	}
	/* too large, and no number */
	assert_int_equal(m1b_float_to_e4m3(449.0f), 0x7e);
	assert_int_equal(m1b_float_to_e4m3(-1e30f), 0xfe);
	assert_int_equal(m1b_float_to_e4m3(INFINITY), 0x7e);
	assert_int_equal(m1b_float_to_e4m3(NAN) & 0x7f, 0x7f);
	assert_int_equal(m1b_float_to_e4m3(1e-40f), 0);
}

/* Numbers and scales from two tensors become a row of blocks. */
static void
test_joined_eights(void **state)
{
	const uint16_t halves[2] = {0x3f00, 0xbf00}; /* bf16 0.5, -0.5 */
	float scales[2] = {0.25f, 3.0f};
	uint8_t numbers[256];
	uint8_t row[264];
	float x[256];
	bool bad_scale;

	(void) state;
	for (int i = 0; i < 256; i++)
		numbers[i] = (uint8_t) (i % 0x7f);
	assert_true(m1b_e4m3_row(numbers, M1B_F32, scales, 256, row, &bad_scale));
	m1b_dequantize(M1B_F8_E4M3, row, 256, x);
	for (int i = 0; i < 256; i++)
		assert_true(x[i] == scales[i / 128] * e4m3(numbers[i]));
	assert_true(m1b_e4m3_row(numbers, M1B_BF16, halves, 128, row, &bad_scale));
	m1b_dequantize(M1B_F8_E4M3, row, 128, x);
	assert_true(x[3] == 0.5f * e4m3(3));

	assert_false(m1b_e4m3_row(numbers, M1B_BF16, halves, 256, row, &bad_scale));
	assert_true(bad_scale);
	for (int i = 0; i < 4; i++)
	{
		scales[1] = (const float[]){NAN, INFINITY, -1.0f, 1e36f}[i];
		assert_false(m1b_e4m3_row(numbers, M1B_F32, scales, 256, row, &bad_scale));
		assert_true(bad_scale);
	}
	scales[1] = 7e35f;
	assert_true(m1b_e4m3_row(numbers, M1B_F32, scales, 256, row, &bad_scale));
	for (int sign = 0; sign < 2; sign++)
	{
		numbers[200] = sign ? 0xff : 0x7f;
		assert_false(m1b_e4m3_row(numbers, M1B_F32, scales, 256, row, &bad_scale));
		assert_false(bad_scale);
	}
}

static void
test_simple_blocks(void **state)
{
	uint8_t block[34] = {0x00, 0x38}; /* d = 0.5 */
	float x[32];

	(void) state;
	block[2] = (uint8_t) -128;
	block[33] = 127;
	m1b_dequantize(M1B_Q8_0, block, 32, x);
	assert_true(x[0] == -64.0f && x[1] == 0.0f && x[31] == 63.5f);
	memset(block + 2, 0x88, 16); /* all zero */
	block[2] = 0xf0;			 /* element 0: 0 - 8; element 16: 15 - 8 */
	m1b_dequantize(M1B_Q4_0, block, 32, x);
	assert_true(x[0] == -4.0f && x[16] == 3.5f && x[1] == 0.0f && x[31] == 0.0f);
}

static void
test_k_blocks(void **state)
{
	uint8_t block[210] = {0};
	float x[256];

	(void) state;
	/* d = 1, dmin = 0.5; group 0: scale 3, minimum 2; group 7: scale 0x2f, minimum 0x3a, their high bits set apart */
	block[1] = 0x3c;
	block[3] = 0x38;
	block[4] = 3;
	block[8] = 2;
	block[4 + 3] = 2 << 6;
	block[4 + 7] = 3 << 6;
	block[4 + 11] = 0xaf;
	block[16] = 0x05;		/* Q4_K: element 0 is 5 */
	block[16 + 127] = 0x90; /* element 255 is 9 */
	m1b_dequantize(M1B_Q4_K, block, 256, x);
	assert_true(x[0] == 3.0f * 5 - 0.5f * 2 && x[1] == -1.0f);
	assert_true(x[255] == 47.0f * 9 - 0.5f * 58 && x[100] == 0.0f);

	memset(block + 16, 0, 160);
	block[16] = 1;			 /* Q5_K: the fifth bit of element 0, group 0 */
	block[16 + 31] = 1 << 7; /* of element 255, group 7 */
	block[48 + 127] = 0x90;
	m1b_dequantize(M1B_Q5_K, block, 256, x);
	assert_true(x[0] == 3.0f * 16 - 1.0f && x[255] == 47.0f * 25 - 29.0f);

	memset(block, 0, sizeof block);
	block[209] = 0x3c; /* Q6_K: d = 1 */
	block[192] = (uint8_t) -2;
	block[192 + 15] = 5;
	block[0] = 0x07;		  /* element 0: 7 + 16 * 3 - 32 */
	block[128] = 3;			  /* element 0's high bits */
	block[127] = 0xa0;		  /* element 255's low bits */
	block[128 + 63] = 2 << 6; /* element 255's high bits */
	m1b_dequantize(M1B_Q6_K, block, 256, x);
	assert_true(x[0] == -2.0f * (7 + 48 - 32) && x[255] == 5.0f * (10 + 32 - 32));
}

/* ---- the way back ---- */

#define N 4096

static const m1b_dtype made[] = {M1B_Q8_0, M1B_Q4_0, M1B_Q4_K, M1B_F8_E4M3};
#define N_MADE (sizeof made / sizeof *made)

/* Quantizes and comes back. */
static void
round_trip(m1b_dtype type, const float *x, size_t n, float *back)
{
	uint8_t blocks[2 * N];

	assert_true(n <= N && m1b_bytes(type, n) <= sizeof blocks);
	memset(blocks, 0xa5, sizeof blocks);
	assert_true(m1b_quantize(type, x, n, blocks));
	assert_int_equal(blocks[m1b_bytes(type, n)], 0xa5);
	m1b_dequantize(type, blocks, n, back);
}

static double
root_mean_square(const float *x, const float *y, size_t n)
{
	double sum = 0.0;

	for (size_t i = 0; i < n; i++)
		sum += ((double) x[i] - y[i]) * ((double) x[i] - y[i]);
	return sqrt(sum / (double) n);
}

/* About normally distributed, as weights are. */
static void
fill_normal(float *x, size_t n, float scale, uint64_t *seed)
{
	for (size_t i = 0; i < n; i++)
	{
		float sum = 0.0f;

		for (int k = 0; k < 12; k++)
			sum += test_random_float(seed) * 0.5f;
		x[i] = sum * scale;
	}
}

static void
test_quantized_error(void **state)
{
	static const double most[N_MADE] = {0.006, 0.085, 0.075, 0.028}; /* of the weights' own root mean square */
	static const float zero[N];
	float x[N];
	float back[N];
	uint64_t seed = 5;

	(void) state;
	for (float scale = 1e-3f; scale < 1e4f; scale *= 10.0f)
	{
		fill_normal(x, N, scale, &seed);
		for (size_t t = 0; t < N_MADE; t++)
		{
			round_trip(made[t], x, N, back);
			assert_true(root_mean_square(x, back, N) < most[t] * root_mean_square(x, zero, N));
		}
		/* no weight of Q8_0 is off by more than half a step */
		round_trip(M1B_Q8_0, x, N, back);
		for (int b = 0; b < N; b += 32)
		{
			float largest = 0.0f;

			for (int i = b; i < b + 32; i++)
				largest = fmaxf(largest, fabsf(x[i]));
			for (int i = b; i < b + 32; i++)
				assert_true(fabsf(x[i] - back[i]) <= largest / 127.0f * 0.5f * 1.01f);
		}
	}
}

/* The search of Q4_0 is never worse than the plain choice, where the largest weight is eight steps. */
static void
test_quantized_search(void **state)
{
	float x[32];
	float back[32];
	float plain[32];
	uint64_t seed = 6;

	(void) state;
	for (int round = 0; round < 2000; round++)
	{
		float largest = 0.0f;
		float d;

		fill_normal(x, 32, 1.0f, &seed);
		for (int i = 0; i < 32; i++)
			largest = fabsf(x[i]) > fabsf(largest) ? x[i] : largest;
		d = m1b_half_to_float(m1b_float_to_half(largest / -8.0f));
		for (int i = 0; i < 32; i++)
			plain[i] = d * fminf(fmaxf(rintf(x[i] / d), -8.0f), 7.0f);
		round_trip(M1B_Q4_0, x, 32, back);
		assert_true(root_mean_square(x, back, 32) <= root_mean_square(x, plain, 32) * 1.001);
	}
}

/* What a format can hold exactly comes back exactly; what lies between two steps goes to the even one. */
static void
test_quantized_exact(void **state)
{
	static const float ties[] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f};
	static const float want[] = {127.0f, 0.0f, 2.0f, 2.0f, 0.0f, -2.0f, -2.0f, 126.0f};
	float x[256] = {0};
	float back[256];

	(void) state;
	memcpy(x, ties, sizeof ties);
	round_trip(M1B_Q8_0, x, 32, back);
	assert_memory_equal(back, want, sizeof want);
	for (int i = 0; i < 32; i++)
		x[i] = (float) (i % 16 - 8) * 0.25f;
	round_trip(M1B_Q4_0, x, 32, back);
	assert_memory_equal(back, x, 32 * sizeof *x);
	for (int i = 0; i < 256; i++)
		x[i] = e4m3(i % 0x7f) * (i < 128 ? 0.5f : -4.0f);
	round_trip(M1B_F8_E4M3, x, 256, back);
	assert_memory_equal(back, x, sizeof x);
	for (int i = 0; i < 256; i++)
		x[i] = (float) (i * 7 % 16) * 63.0f / 64.0f - 63.0f / 32.0f;
	round_trip(M1B_Q4_K, x, 256, back);
	for (int i = 0; i < 256; i++)
		assert_true(fabsf(x[i] - back[i]) < 1e-2f);
}

static void
test_quantized_extremes(void **state)
{
	/* 1e-30 is below most scales, 1e-38 below all; each fills all weights, then only one */
	static const float values[] = {0.0f, 1e-38f, 1e-30f, -1e-30f, 1e-6f, 1.0f, -1.0f, 65504.0f, -65504.0f};
	static const float refused[] = {INFINITY, -INFINITY, NAN, 65536.0f, -1e30f};
	float x[256];
	float back[256];
	uint8_t blocks[512];

	(void) state;
	for (size_t t = 0; t < N_MADE; t++)
	{
		for (size_t v = 0; v < sizeof values / sizeof *values; v++)
			for (int alone = 0; alone < 2; alone++)
			{
				for (int i = 0; i < 256; i++)
					x[i] = alone && i != 77 ? 0.0f : values[v];
				round_trip(made[t], x, 256, back);
				for (int i = 0; i < 256; i++)
					assert_true(fabsf(back[i] - x[i]) <= 0.02f * fabsf(values[v]) + 1e-6f);
			}
		for (size_t v = 0; v < sizeof refused / sizeof *refused; v++)
			for (int at = 0; at < 256; at += 51)
			{
				memset(x, 0, sizeof x);
				x[at] = refused[v];
				assert_false(m1b_quantize(made[t], x, 256, blocks));
			}
	}
	assert_true(m1b_can_quantize(M1B_Q4_K) && !m1b_can_quantize(M1B_Q6_K) && !m1b_can_quantize(M1B_F32));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_bf16),
		cmocka_unit_test(test_eights),
		cmocka_unit_test(test_joined_eights),
		cmocka_unit_test(test_simple_blocks),
		cmocka_unit_test(test_k_blocks),
		cmocka_unit_test(test_quantized_error),
		cmocka_unit_test(test_quantized_search),
		cmocka_unit_test(test_quantized_exact),
		cmocka_unit_test(test_quantized_extremes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
