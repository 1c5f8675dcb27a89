/* blocks.c - see blocks.h. */
#include "blocks/blocks.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#define SUPER 256  /* weights of a superblock, the K formats */
#define EIGHTS 128 /* weights of a block of F8_E4M3 */

typedef struct format
{
	const char *name;
	int weights;
	size_t bytes;
} format;

static const format formats[] = {
	[M1B_F32] = {"F32", 1, 4},
	[M1B_F16] = {"F16", 1, 2},
	[M1B_BF16] = {"BF16", 1, 2},
	[M1B_Q8_0] = {"Q8_0", 32, 2 + 32},
	[M1B_Q4_0] = {"Q4_0", 32, 2 + 16},
	[M1B_Q4_K] = {"Q4_K", SUPER, 2 + 2 + 12 + 128},
	[M1B_Q5_K] = {"Q5_K", SUPER, 2 + 2 + 12 + 32 + 128},
	[M1B_Q6_K] = {"Q6_K", SUPER, 128 + 64 + 16 + 2},
	[M1B_F8_E4M3] = {"F8_E4M3", EIGHTS, 4 + EIGHTS},
};

int
m1b_block_weights(m1b_dtype type)
{
	return formats[type].weights;
}

size_t
m1b_block_bytes(m1b_dtype type)
{
	return formats[type].bytes;
}

size_t
m1b_bytes(m1b_dtype type, size_t n)
{
	return n / (size_t) formats[type].weights * formats[type].bytes;
}

bool
m1b_is_quantized(m1b_dtype type)
{
	return formats[type].weights > 1;
}

bool
m1b_is_integer(m1b_dtype type)
{
	return m1b_is_quantized(type) && type != M1B_F8_E4M3;
}

const char *
m1b_dtype_name(m1b_dtype type)
{
	return formats[type].name;
}

bool
m1b_dtype_parse(const char *name, m1b_dtype *type)
{
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
		if (strcasecmp(name, formats[i].name) == 0)
		{
			*type = (m1b_dtype) i;
			return true;
		}
	return false;
}

/* ---- floats ---- */

static float
float_of_bits(uint32_t bits)
{
	float x;

	memcpy(&x, &bits, sizeof x);
	return x;
}

static uint16_t
read_u16(const uint8_t *from)
{
	uint16_t x;

	memcpy(&x, from, sizeof x);
	return x;
}

float
m1b_half_to_float(uint16_t half)
{
	const uint32_t sign = (uint32_t) (half & 0x8000) << 16;
	const uint32_t magnitude = half & 0x7fff;
	float x;

	if (magnitude >= 0x7c00) /* infinity and NaN keep their mantissa */
		return float_of_bits(sign | 0x7f800000u | (magnitude & 0x3ff) << 13);
	/* shifted into float's place, the exponent is off by the difference of the biases; subnormals come out right too */
	x = float_of_bits(magnitude << 13) * 0x1p112f;
	return sign != 0 ? -x : x;
}

uint16_t
m1b_float_to_half(float x)
{
	uint32_t bits;
	uint16_t sign;

	memcpy(&bits, &x, sizeof bits);
	sign = (uint16_t) (bits >> 16 & 0x8000);
	bits &= 0x7fffffffu;
	if (bits > 0x7f800000u)
		return sign | 0x7e00;
	if (bits >= 0x47800000u)
		return sign | 0x7c00;
	if (bits < 0x38800000u)
	{
		/* below the normal range: adding 0.5 lets the FPU round the mantissa into place */
		float shifted = float_of_bits(bits) + 0.5f;

		memcpy(&bits, &shifted, sizeof bits);
		return sign | (uint16_t) (bits - 0x3f000000u);
	}
	/* round to nearest even; a carry into the exponent is right, up to infinity */
	bits += 0xfff + (bits >> 13 & 1);
	return sign | (uint16_t) ((bits - 0x38000000u) >> 13);
}

float
m1b_e4m3_to_float(uint8_t e4m3)
{
	const uint32_t sign = (uint32_t) (e4m3 & 0x80) << 24;
	const uint32_t magnitude = e4m3 & 0x7f;

	if (magnitude == 0x7f)
		return NAN;
	/* as in m1b_half_to_float */
	return float_of_bits(sign | magnitude << 20) * 0x1p120f;
}

static float
read_half(const uint8_t *from)
{
	return m1b_half_to_float(read_u16(from));
}

/* ---- one block of each format to floats ---- */

static void
q8_0(const uint8_t *from, float *to)
{
	const float d = read_half(from);

	for (int i = 0; i < 32; i++)
		to[i] = d * (float) (int8_t) from[2 + i];
}

static void
q4_0(const uint8_t *from, float *to)
{
	const float d = read_half(from);

	for (int i = 0; i < 16; i++)
	{
		to[i] = d * (float) ((from[2 + i] & 15) - 8);
		to[i + 16] = d * (float) ((from[2 + i] >> 4) - 8);
	}
}

void
m1b_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8])
{
	for (int i = 0; i < 4; i++)
	{
		scales[i] = packed[i] & 63;
		mins[i] = packed[i + 4] & 63;
		scales[i + 4] = (uint8_t) ((packed[i + 8] & 15) | packed[i] >> 6 << 4);
		mins[i + 4] = (uint8_t) (packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4);
	}
}

/* Q4_K and Q5_K: eight groups of 32 with a scale and a minimum each; high holds the fifth bits, or is NULL */
static void
k_groups(const uint8_t *from, const uint8_t *high, const uint8_t *nibbles, float *to)
{
	const float d = read_half(from);
	const float dmin = read_half(from + 2);
	uint8_t scales[8];
	uint8_t mins[8];

	m1b_k_scales(from + 4, scales, mins);
	for (int g = 0; g < 8; g++)
		for (int i = 0; i < 32; i++)
		{
			const uint8_t byte = nibbles[g / 2 * 32 + i];
			int q = g % 2 == 0 ? byte & 15 : byte >> 4;

			if (high != NULL)
				q |= (high[i] >> g & 1) << 4;
			to[g * 32 + i] = d * scales[g] * (float) q - dmin * mins[g];
		}
}

static void
q4_k(const uint8_t *from, float *to)
{
	k_groups(from, NULL, from + 16, to);
}

static void
q5_k(const uint8_t *from, float *to)
{
	k_groups(from, from + 16, from + 48, to);
}

void
m1b_q6_k_values(const uint8_t *block, uint8_t values[256])
{
	for (int half = 0; half < 2; half++)
		for (int quarter = 0; quarter < 4; quarter++)
		{
			const uint8_t *low = block + half * 64 + quarter % 2 * 32;
			const uint8_t *high = block + 128 + half * 32;
			uint8_t *to = values + half * 128 + quarter * 32;

			for (int i = 0; i < 32; i++)
				to[i] = (uint8_t) ((low[i] >> quarter / 2 * 4 & 15) | (high[i] >> 2 * quarter & 3) << 4);
		}
}

static void
q6_k(const uint8_t *from, float *to)
{
	const float d = read_half(from + 208);
	uint8_t values[SUPER];

	m1b_q6_k_values(from, values);
	for (int i = 0; i < SUPER; i++)
		to[i] = d * (float) (int8_t) from[192 + i / 16] * (float) (values[i] - 32);
}

static void
f8_e4m3(const uint8_t *from, float *to)
{
	float scale;

	memcpy(&scale, from, sizeof scale);
	for (int i = 0; i < EIGHTS; i++)
		to[i] = scale * m1b_e4m3_to_float(from[4 + i]);
}

void
m1b_dequantize(m1b_dtype type, const void *from, size_t n, float *to)
{
	static void (*const block[])(const uint8_t *from, float *to) = {
		[M1B_Q8_0] = q8_0, [M1B_Q4_0] = q4_0, [M1B_Q4_K] = q4_k,
		[M1B_Q5_K] = q5_k, [M1B_Q6_K] = q6_k, [M1B_F8_E4M3] = f8_e4m3,
	};
	const uint8_t *at = from;

	switch (type)
	{
		case M1B_F32:
			memcpy(to, from, n * sizeof *to);
			break;
		case M1B_F16:
			for (size_t i = 0; i < n; i++)
				to[i] = read_half(at + 2 * i);
			break;
		case M1B_BF16:
			for (size_t i = 0; i < n; i++)
				to[i] = m1b_bf16_to_float(read_u16(at + 2 * i));
			break;
		default:
			for (size_t i = 0; i < n; i += (size_t) formats[type].weights, at += formats[type].bytes)
				block[type](at, to + i);
			break;
	}
}

/* ---- e4m3 numbers and their scales, from two tensors ---- */

static bool
any_nan(const uint8_t *e4m3, int n)
{
	bool found = false;

	for (int i = 0; i < n; i++)
		found |= (e4m3[i] & 0x7f) == 0x7f;
	return found;
}

bool
m1b_e4m3_row(const uint8_t *from, m1b_dtype scale_type, const void *scales, size_t n, void *to, bool *bad_scale)
{
	uint8_t *at = to;

	for (size_t b = 0; b < n / EIGHTS; b++, from += EIGHTS, at += 4 + EIGHTS)
	{
		float scale;

		m1b_dequantize(scale_type, (const uint8_t *) scales + m1b_bytes(scale_type, b), 1, &scale);
		*bad_scale = !(scale >= 0.0f && scale <= FLT_MAX / M1B_E4M3_MOST);
		if (*bad_scale || any_nan(from, EIGHTS))
			return false;
		memcpy(at, &scale, 4);
		memcpy(at + 4, from, EIGHTS);
	}
	return true;
}
