/* test_blocks.c - stored weight formats: sizes, and blocks whose values were worked out by hand. */
#include "testing.h"

#include <math.h>
#include <string.h>

#include "backend/blocks.h"

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_simple_blocks),
		cmocka_unit_test(test_k_blocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
