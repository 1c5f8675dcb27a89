/*
 * simd_portable.h - the vector vocabulary in plain C (see cpu_isa.h), with the
 * compiler's generic vectors. The reference that the other sets are tested against.
 */
#include <math.h>
#include <string.h>

#define VF_NAME "portable"
#define VF_WIDTH 4
#define VF_DOT_ROWS 2
#define VF_QDOT_ROWS 2
#define VF_MAC_ROWS 4
#define VF_MAC_VECS 2
#define VF_MAC_TALL 4 /* rows of narrower tiles */

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vf_int __attribute__((vector_size(16)));

static inline vf
vf_set(float x)
{
	return (vf){x, x, x, x};
}

static inline vf
vf_load(const float *p)
{
	vf x;

	memcpy(&x, p, sizeof x);
	return x;
}

/* Loads n < VF_WIDTH elements, the rest zero. */
static inline vf
vf_load_n(const float *p, int n)
{
	vf x = {0};

	memcpy(&x, p, (size_t) n * sizeof *p);
	return x;
}

static inline void
vf_store(float *p, vf x)
{
	memcpy(p, &x, sizeof x);
}

static inline void
vf_store_n(float *p, vf x, int n)
{
	memcpy(p, &x, (size_t) n * sizeof *p);
}

static inline vf
vf_load_bf16_n(const uint16_t *p, int n)
{
	uint16_t h[VF_WIDTH] = {0};
	vf_int bits = {0};
	vf x;

	memcpy(h, p, (size_t) n * sizeof *p);
	for (int i = 0; i < VF_WIDTH; i++)
		bits[i] = (int32_t) ((uint32_t) h[i] << 16);
	memcpy(&x, &bits, sizeof x);
	return x;
}

static inline vf
vf_load_bf16(const uint16_t *p)
{
	return vf_load_bf16_n(p, VF_WIDTH);
}

/* IEEE half to float, subnormals, infinities and NaN included. */
static inline float
vf_half(uint16_t h)
{
	int exponent = h >> 10 & 31;
	int mantissa = h & 1023;
	float magnitude;

	if (exponent == 31)
		magnitude = mantissa ? NAN : INFINITY;
	else if (exponent == 0)
		magnitude = ldexpf((float) mantissa, -24);
	else
		magnitude = ldexpf((float) (mantissa | 1024), exponent - 25);
	return h & 0x8000 ? -magnitude : magnitude;
}

static inline vf
vf_load_f16_n(const uint16_t *p, int n)
{
	vf x = {0};

	for (int i = 0; i < n; i++)
	{
		uint16_t h;

		memcpy(&h, p + i, sizeof h);
		x[i] = vf_half(h);
	}
	return x;
}

static inline vf
vf_load_f16(const uint16_t *p)
{
	return vf_load_f16_n(p, VF_WIDTH);
}

/* e4m3 numbers (blocks.h), which are never NaN, divided by 256. */
static inline vf
vf_load_e4m3(const uint8_t *p)
{
	const vf_int x = {p[0], p[1], p[2], p[3]};

	/* in float's place, the exponent is off by the difference of the biases */
	return (vf) ((x & 0x80) << 24 | (x & 0x7f) << 20) * 0x1p112f;
}

static inline vf
vf_add(vf a, vf b)
{
	return a + b;
}

static inline vf
vf_sub(vf a, vf b)
{
	return a - b;
}

static inline vf
vf_mul(vf a, vf b)
{
	return a * b;
}

static inline vf
vf_div(vf a, vf b)
{
	return a / b;
}

static inline vf
vf_select(vf_int mask, vf a, vf b)
{
	return (vf) ((mask & (vf_int) a) | (~mask & (vf_int) b));
}

static inline vf
vf_max(vf a, vf b)
{
	return vf_select(a > b, a, b);
}

/* a * b + c */
static inline vf
vf_fma(vf a, vf b, vf c)
{
	return a * b + c;
}

static inline vf
vf_round(vf x)
{
	for (int i = 0; i < VF_WIDTH; i++)
		x[i] = rintf(x[i]);
	return x;
}

/* x * 2^n for integral n in [-126, 127] */
static inline vf
vf_scale2(vf x, vf n)
{
	vf_int e = (__builtin_convertvector(n, vf_int) + 127) << 23;

	return x * (vf) e;
}

/* x where test >= limit, else 0 */
static inline vf
vf_keep_if_ge(vf x, vf test, vf limit)
{
	return (vf) ((test >= limit) & (vf_int) x);
}

static inline float
vf_sum(vf x)
{
	return (x[0] + x[1]) + (x[2] + x[3]);
}

/* The sums of four vectors, each in the order of vf_sum. */
static inline void
vf_sum4(vf a, vf b, vf c, vf d, float out[4])
{
	out[0] = vf_sum(a);
	out[1] = vf_sum(b);
	out[2] = vf_sum(c);
	out[3] = vf_sum(d);
}

static inline float
vf_hmax(vf x)
{
	float a = x[0] > x[1] ? x[0] : x[1];
	float b = x[2] > x[3] ? x[2] : x[3];

	return a > b ? a : b;
}

static inline vf
vf_abs(vf x)
{
	return (vf) ((vf_int) x & 0x7fffffff);
}

/* Rounds to the nearest integers, which must fit. */
static inline void
vf_store_i8(int8_t *p, vf x)
{
	for (int i = 0; i < VF_WIDTH; i++)
		p[i] = (int8_t) lrintf(x[i]);
}

static inline vf
vf_load_i8(const int8_t *p)
{
	return (vf){p[0], p[1], p[2], p[3]};
}

static inline vf
vf_load_u8(const uint8_t *p)
{
	return (vf){p[0], p[1], p[2], p[3]};
}

/* ---- bytes, four to each of VF_WIDTH lanes, and 32-bit integers ---- */

typedef vf_int vi;
typedef uint8_t vi_u8 __attribute__((vector_size(16)));

static inline vi
vi_load(const void *p)
{
	vi x;

	memcpy(&x, p, sizeof x);
	return x;
}

static inline vi
vi_set(int32_t x)
{
	return (vi){x, x, x, x};
}

static inline vi
vi_bytes(int x)
{
	return vi_set((int32_t) ((uint32_t) x * 0x01010101u));
}

static inline vi
vi_and(vi a, vi b)
{
	return a & b;
}

static inline vi
vi_or(vi a, vi b)
{
	return a | b;
}

/* Shifts of bytes. */
static inline vi
vi_shift_left(vi x, int n)
{
	return (vi) ((vi_u8) x << (uint8_t) n);
}

static inline vi
vi_shift_right(vi x, int n)
{
	return (vi) ((vi_u8) x >> (uint8_t) n);
}

static inline vi
vi_shift_left32(vi x, int n)
{
	return x * (1 << n);
}

static inline vf
vi_to_vf(vi x)
{
	return __builtin_convertvector(x, vf);
}

/* acc + the dot product of each lane's four unsigned bytes with the four signed ones at x; wide: they may exceed 127 */
static inline vi
vi_dot(vi acc, vi w, const int8_t *x, bool wide)
{
	vi_u8 bytes = (vi_u8) w;

	(void) wide;
	for (int i = 0; i < VF_WIDTH; i++)
		for (int c = 0; c < 4; c++)
			acc[i] += (int32_t) bytes[4 * i + c] * x[c];
	return acc;
}
