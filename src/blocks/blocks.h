/*
 * blocks.h - how each weight type is stored, row-major, and the plain conversions.
 *
 * The block formats are those of GGUF files: a row is a sequence of blocks, each a
 * scale or two and small integers. Float types are blocks of one. This is what is
 * on disk and the reference for every kernel; nothing here is fast.
 *
 * F8_E4M3 is our own: a block is a float32 scale, then 128 numbers of a sign, four
 * exponent and three mantissa bits. Checkpoints keep such numbers in one tensor and a
 * scale for each 128 x 128 of them in another; a row of ours repeats the scales of the
 * rows around it. Neither scales nor numbers are ever NaN.
 */
#ifndef M1_BLOCKS_BLOCKS_H
#define M1_BLOCKS_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum m1b_dtype
{
	M1B_F32,
	M1B_F16,
	M1B_BF16,
	M1B_Q8_0,
	M1B_Q4_0,
	M1B_Q4_K,
	M1B_Q5_K,
	M1B_Q6_K,
	M1B_F8_E4M3,
} m1b_dtype;

/* Weights per block and bytes per block; a row's length must be a multiple of the former. */
int m1b_block_weights(m1b_dtype type);
size_t m1b_block_bytes(m1b_dtype type);
/* Bytes of n weights, n a multiple of the block. */
size_t m1b_bytes(m1b_dtype type, size_t n);
bool m1b_is_quantized(m1b_dtype type);
/* Quantized to small integers: not F8_E4M3, whose numbers are floats. */
bool m1b_is_integer(m1b_dtype type);
/* "F32", "BF16", "Q4_K", as GGUF tools spell it */
const char *m1b_dtype_name(m1b_dtype type);
/* The type of that name, in letters of either case; false when there is none. */
bool m1b_dtype_parse(const char *name, m1b_dtype *type);

/* n weights to float32; from may be unaligned. */
void m1b_dequantize(m1b_dtype type, const void *from, size_t n, float *to);

/* Whether m1b_quantize makes this type: Q8_0, Q4_0, Q4_K and F8_E4M3. */
bool m1b_can_quantize(m1b_dtype type);
/* n floats to blocks. false when one is not a number, or beyond 65504, which most formats' scales could not hold. */
bool m1b_quantize(m1b_dtype type, const float *from, size_t n, void *to);

/* The 6-bit scales and minimums of the eight groups of a Q4_K or Q5_K block. */
void m1b_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8]);
/* The weights of a Q6_K block as stored, 0 to 63; they stand for 32 less. */
void m1b_q6_k_values(const uint8_t *block, uint8_t values[256]);

float m1b_half_to_float(uint16_t half);
/* Rounds to nearest even; overflows to infinity. */
uint16_t m1b_float_to_half(float x);

/* Rounds to nearest even; NaN stays NaN. Here, because every number of a KV page goes through it. */
static inline uint16_t
m1b_float_to_bf16(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	if ((bits & 0x7fffffffu) > 0x7f800000u) /* without the bits that go, it might be infinity */
		return (uint16_t) (bits >> 16 | 0x40);
	return (uint16_t) ((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float
m1b_bf16_to_float(uint16_t bf16)
{
	const uint32_t bits = (uint32_t) bf16 << 16;
	float x;

	memcpy(&x, &bits, sizeof x);
	return x;
}

#define M1B_E4M3_MOST 448.0f /* the largest e4m3 number; there is no infinity */

float m1b_e4m3_to_float(uint8_t e4m3);
/* Rounds to nearest even; what is too large becomes the largest. NaN stays NaN. */
uint8_t m1b_float_to_e4m3(float x);

/*
 * A row of F8_E4M3 from n numbers, n a multiple of 128, and their scales, of type F32 or BF16, one for each 128
 * columns. false when one is NaN, or a scale is negative or so large that a weight would be infinite: *bad_scale tells
 * which.
 */
bool m1b_e4m3_row(const uint8_t *from, m1b_dtype scale_type, const void *scales, size_t n, void *to, bool *bad_scale);

#endif
