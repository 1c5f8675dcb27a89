/*
 * blocks_quantize.c - the way back: floats to blocks. See blocks.h.
 *
 * A block's scale is the one that leaves the least squared error among some
 * candidates, each refined by least squares; the integers are then rounded with the
 * scale as it is stored. Sums are kept in LANES parts, so that the compiler may use
 * vectors without changing their order: the result is the same on every machine.
 */
#include "blocks/blocks.h"

#include <float.h>
#include <string.h>

#define SUPER 256 /* weights of a superblock, the K formats */
#define GROUP 32  /* weights of a group, and of a simple block */
#define LANES 8
#define MOST_BITS 0x477fe000u /* 65504, the largest half, as a float's bits: scales are halves */

/* To the nearest integer, halves to even; |x| < 2^22. */
static inline int
nearest(float x)
{
	const float shifted = x + 12582912.0f; /* 1.5 * 2^23: the integer ends up in the low bits of the mantissa */
	int bits;

	memcpy(&bits, &shifted, sizeof bits);
	return (bits & 0x7fffff) - 0x400000;
}

/* The same, limited to [low, high]; limiting first keeps any finite x in range. */
static inline float
level(float x, float low, float high)
{
	x = x < low ? low : x;
	x = x > high ? high : x;
	return (float) nearest(x);
}

static inline float
magnitude(float x)
{
	return x < 0.0f ? -x : x;
}

static float
sum_of(const float lanes[LANES])
{
	return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/* Neither infinite, nor NaN, nor above what a half holds. */
static bool
all_usable(const float *x, size_t n)
{
	uint32_t bad = 0;

	for (size_t i = 0; i < n; i++)
	{
		uint32_t bits;

		memcpy(&bits, &x[i], sizeof bits);
		bad |= (bits & 0x7fffffffu) > MOST_BITS;
	}
	return bad == 0;
}

/* Stores a scale and returns what was stored. */
static float
put_half(float scale, uint8_t *to)
{
	const uint16_t half = m1b_float_to_half(scale);

	memcpy(to, &half, sizeof half);
	return m1b_half_to_float(half);
}

static float
inverse(float x)
{
	return x == 0.0f ? 0.0f : 1.0f / x;
}

/* ---- Q8_0: a scale and 32 signed bytes ---- */

static void
q8_0(const float *x, uint8_t *to)
{
	float most = 0.0f;
	float d, inv;

	for (int i = 0; i < GROUP; i++)
		most = magnitude(x[i]) > most ? magnitude(x[i]) : most;
	d = put_half(most / 127.0f, to);
	inv = inverse(d);
	for (int i = 0; i < GROUP; i++)
		to[2 + i] = (uint8_t) (int8_t) level(x[i] * inv, -127.0f, 127.0f);
}

/* ---- Q4_0: a scale and 32 numbers from -8 to 7 ---- */

#define Q4_0_CANDIDATES 9 /* the largest weight becomes -8.8, -8.6 ... -7.2 steps */

/* With x rounded to steps of 1 / inv: the step that fits best, and how much of x's squares it explains. */
static float
fit_step(const float *x, float inv, float *step)
{
	float xq[LANES] = {0};
	float qq[LANES] = {0};
	float sum_xq, sum_qq;

	for (int i = 0; i < GROUP; i += LANES)
		for (int l = 0; l < LANES; l++)
		{
			const float q = level(x[i + l] * inv, -8.0f, 7.0f);

			xq[l] += x[i + l] * q;
			qq[l] += q * q;
		}
	sum_xq = sum_of(xq);
	sum_qq = sum_of(qq);
	*step = sum_qq > 0.0f ? sum_xq / sum_qq : 0.0f;
	return sum_xq * *step;
}

static void
q4_0(const float *x, uint8_t *to)
{
	float most = 0.0f; /* the largest, with its sign: that side has the eighth step */
	float d = 0.0f;
	float best = -1.0f;
	float inv;

	for (int i = 0; i < GROUP; i++)
		most = magnitude(x[i]) > magnitude(most) ? x[i] : most;
	for (int c = 0; most != 0.0f && c < Q4_0_CANDIDATES; c++)
	{
		float step;
		const float explained = fit_step(x, (-8.8f + 0.2f * (float) c) / most, &step);

		if (explained > best)
		{
			best = explained;
			d = step;
		}
	}
	d = put_half(d, to);
	inv = inverse(d);
	for (int i = 0; i < GROUP / 2; i++)
	{
		const int low = (int) level(x[i] * inv, -8.0f, 7.0f) + 8;
		const int high = (int) level(x[i + GROUP / 2] * inv, -8.0f, 7.0f) + 8;

		to[2 + i] = (uint8_t) (low | high << 4);
	}
}

/* ---- Q4_K: eight groups, each with a scale and a minimum of 6 bits, times two scales ---- */

#define Q4_K_CANDIDATES 9 /* the range of the group becomes 13.6, 13.9 ... 16 steps */

/* x is about step * q - offset, q from 0 to 15, offset not negative. */
typedef struct line
{
	float step;
	float offset;
} line;

/*
 * With x rounded on line f: the line of least squares through x and its integers, and what it leaves of x's squares,
 * less a constant. The loop over sums is written out so that each is a vector.
 */
static line
refit(const float *x, line f, float *error)
{
	const float inv = inverse(f.step);
	float lane_q[LANES] = {0};
	float lane_qq[LANES] = {0};
	float lane_qx[LANES] = {0};
	float lane_x[LANES] = {0};
	float q, qq, qx, sx, determinant;

	for (int i = 0; i < GROUP; i += LANES)
		for (int l = 0; l < LANES; l++)
		{
			const float n = level((x[i + l] + f.offset) * inv, 0.0f, 15.0f);

			lane_q[l] += n;
			lane_qq[l] += n * n;
			lane_qx[l] += n * x[i + l];
			lane_x[l] += x[i + l];
		}
	q = sum_of(lane_q);
	qq = sum_of(lane_qq);
	qx = sum_of(lane_qx);
	sx = sum_of(lane_x);
	determinant = (float) GROUP * qq - q * q;
	if (determinant > 0.0f)
	{
		line fitted = {((float) GROUP * qx - q * sx) / determinant, (q * qx - qq * sx) / determinant};

		if (fitted.offset < 0.0f) /* then the best line that is allowed goes through zero */
			fitted = (line){qx / qq, 0.0f};
		if (fitted.step > 0.0f)
			f = fitted;
	}
	*error =
		f.step * (f.step * qq - 2.0f * qx - 2.0f * f.offset * q) + f.offset * ((float) GROUP * f.offset + 2.0f * sx);
	return f;
}

static line
best_line(const float *x)
{
	float low = 0.0f; /* zero is always in range: an offset is not negative */
	float high = x[0];
	line best = {0};
	float least = 0.0f;

	for (int i = 0; i < GROUP; i++)
	{
		low = x[i] < low ? x[i] : low;
		high = x[i] > high ? x[i] : high;
	}
	if (high <= low)
		return (line){0.0f, -low};
	for (int c = 0; c < Q4_K_CANDIDATES; c++)
	{
		float error;
		const line f = refit(x, (line){(high - low) / (13.6f + 0.3f * (float) c), -low}, &error);

		if (c == 0 || error < least)
		{
			least = error;
			best = f;
		}
	}
	return best;
}

/* The inverse of m1b_k_scales. */
static void
pack_k_scales(const uint8_t scales[8], const uint8_t mins[8], uint8_t packed[12])
{
	for (int i = 0; i < 4; i++)
	{
		packed[i] = (uint8_t) (scales[i] | scales[i + 4] >> 4 << 6);
		packed[i + 4] = (uint8_t) (mins[i] | mins[i + 4] >> 4 << 6);
		packed[i + 8] = (uint8_t) ((scales[i + 4] & 15) | (mins[i + 4] & 15) << 4);
	}
}

static void
q4_k(const float *x, uint8_t *to)
{
	line lines[8];
	float d = 0.0f;
	float dmin = 0.0f;
	float inv, inv_min;
	uint8_t scales[8];
	uint8_t mins[8];

	for (int g = 0; g < 8; g++)
	{
		lines[g] = best_line(x + g * GROUP);
		d = lines[g].step > d ? lines[g].step : d;
		dmin = lines[g].offset > dmin ? lines[g].offset : dmin;
	}
	d = put_half(d / 63.0f, to);
	dmin = put_half(dmin / 63.0f, to + 2);
	inv = inverse(d);
	inv_min = inverse(dmin);
	for (int g = 0; g < 8; g++)
	{
		scales[g] = (uint8_t) level(lines[g].step * inv, 0.0f, 63.0f);
		mins[g] = (uint8_t) level(lines[g].offset * inv_min, 0.0f, 63.0f);
	}
	pack_k_scales(scales, mins, to + 4);
	for (int g = 0; g < 8; g++)
	{
		const float offset = dmin * mins[g];
		const float inv_step = inverse(d * scales[g]);
		uint8_t *at = to + 16 + g / 2 * 32;

		for (int i = 0; i < GROUP; i++)
		{
			const uint8_t q = (uint8_t) level((x[g * GROUP + i] + offset) * inv_step, 0.0f, 15.0f);

			at[i] = g % 2 == 0 ? q : (uint8_t) (at[i] | q << 4);
		}
	}
}

/* ---- F8_E4M3: a scale that makes the largest weight the largest number, and 128 numbers ---- */

#define EIGHTS 128

/* Without branches, so that the compiler may use vectors. */
static inline uint8_t
e4m3_of(float x)
{
	uint32_t bits, magnitude, code, subnormal;
	float shifted;

	memcpy(&bits, &x, sizeof bits);
	magnitude = bits & 0x7fffffffu;
	/* to nearest even; a carry into the exponent is right */
	code = (magnitude + 0x7ffffu + (magnitude >> 20 & 1) - (120u << 23)) >> 20;
	/* below 2^-6, numbers are multiples of 2^-9: adding 2^14 lets the FPU round to them */
	memcpy(&shifted, &magnitude, sizeof shifted);
	shifted += 16384.0f;
	memcpy(&subnormal, &shifted, sizeof subnormal);
	code = magnitude < 0x3c800000u ? subnormal - 0x46800000u : code;
	code = code > 0x7e ? 0x7e : code;
	code = magnitude > 0x7f800000u ? 0x7f : code;
	return (uint8_t) (code | (bits >> 24 & 0x80));
}

uint8_t
m1b_float_to_e4m3(float x)
{
	return e4m3_of(x);
}

static void
f8_e4m3(const float *x, uint8_t *to)
{
	float most = 0.0f;
	float scale, inv;

	for (int i = 0; i < EIGHTS; i++)
		most = magnitude(x[i]) > most ? magnitude(x[i]) : most;
	scale = most / M1B_E4M3_MOST;
	/* what is too small for a scale with an inverse is zero */
	scale = scale < FLT_MIN ? 0.0f : scale;
	inv = inverse(scale);
	memcpy(to, &scale, sizeof scale);
	for (int i = 0; i < EIGHTS; i++)
		to[4 + i] = e4m3_of(x[i] * inv);
}

bool
m1b_can_quantize(m1b_dtype type)
{
	return type == M1B_Q8_0 || type == M1B_Q4_0 || type == M1B_Q4_K || type == M1B_F8_E4M3;
}

bool
m1b_quantize(m1b_dtype type, const float *from, size_t n, void *to)
{
	static void (*const makers[])(const float *x, uint8_t *to) = {
		[M1B_Q8_0] = q8_0,
		[M1B_Q4_0] = q4_0,
		[M1B_Q4_K] = q4_k,
		[M1B_F8_E4M3] = f8_e4m3,
	};
	void (*const block)(const float *x, uint8_t *to) = makers[type];
	const size_t weights = (size_t) m1b_block_weights(type);
	const size_t bytes = m1b_block_bytes(type);
	uint8_t *at = to;

	if (!all_usable(from, n))
		return false;
	for (size_t i = 0; i < n; i += weights, at += bytes)
		block(from + i, at);
	return true;
}
