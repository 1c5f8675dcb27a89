/* simd_avx512.h - the vector vocabulary on AVX-512 F/BW/DQ/VL, with or without VNNI; see cpu_isa.h. */
#include <immintrin.h>
#include <string.h>

#ifdef __AVX512VNNI__
#define VF_NAME "AVX-512 VNNI"
#else
#define VF_NAME "AVX-512"
#endif
#define VF_WIDTH 16
#define VF_DOT_ROWS 6  /* tile of dot: 6 x rows by 4 weight rows fills 24 of 32 registers */
#define VF_QDOT_ROWS 8 /* tile of qdot: sums of 8 input rows and 8 vectors of weights */
#define VF_MAC_ROWS 6
#define VF_MAC_VECS 4
#define VF_MAC_TALL 8 /* rows of narrower tiles */

typedef __m512 vf;

static inline __mmask16
vf_mask(int n)
{
	return (__mmask16) ((1u << n) - 1u);
}

static inline vf
vf_set(float x)
{
	return _mm512_set1_ps(x);
}

static inline vf
vf_load(const float *p)
{
	return _mm512_loadu_ps(p);
}

/* Loads n < VF_WIDTH elements, the rest zero. */
static inline vf
vf_load_n(const float *p, int n)
{
	return _mm512_maskz_loadu_ps(vf_mask(n), p);
}

static inline void
vf_store(float *p, vf x)
{
	_mm512_storeu_ps(p, x);
}

static inline void
vf_store_n(float *p, vf x, int n)
{
	_mm512_mask_storeu_ps(p, vf_mask(n), x);
}

static inline vf
vf_load_bf16(const uint16_t *p)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *) p)), 16));
}

static inline vf
vf_load_bf16_n(const uint16_t *p, int n)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(vf_mask(n), p)), 16));
}

static inline vf
vf_load_f16(const uint16_t *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}

static inline vf
vf_load_f16_n(const uint16_t *p, int n)
{
	return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vf_mask(n), p));
}

/* e4m3 numbers (blocks.h), which are never NaN, divided by 256. */
static inline vf
vf_load_e4m3(const uint8_t *p)
{
	/* as halves: the sign stays on top, below it a zero and the number's other bits */
	__m256i high = _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *) p)), 8);

	return _mm512_cvtph_ps(_mm256_and_si256(_mm256_srai_epi16(high, 1), _mm256_set1_epi16((short) 0xbfff)));
}

static inline vf
vf_add(vf a, vf b)
{
	return _mm512_add_ps(a, b);
}

static inline vf
vf_sub(vf a, vf b)
{
	return _mm512_sub_ps(a, b);
}

static inline vf
vf_mul(vf a, vf b)
{
	return _mm512_mul_ps(a, b);
}

static inline vf
vf_div(vf a, vf b)
{
	return _mm512_div_ps(a, b);
}

static inline vf
vf_max(vf a, vf b)
{
	return _mm512_max_ps(a, b);
}

/* a * b + c */
static inline vf
vf_fma(vf a, vf b, vf c)
{
	return _mm512_fmadd_ps(a, b, c);
}

static inline vf
vf_round(vf x)
{
	return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* x * 2^n for integral n */
static inline vf
vf_scale2(vf x, vf n)
{
	return _mm512_scalef_ps(x, n);
}

/* x where test >= limit, else 0 */
static inline vf
vf_keep_if_ge(vf x, vf test, vf limit)
{
	return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test, limit, _CMP_GE_OQ), x);
}

static inline __m128
vf_fold4(vf x)
{
	__m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));

	return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* The sums of four vectors, each in the order of vf_sum. */
static inline void
vf_sum4(vf a, vf b, vf c, vf d, float out[4])
{
	/* Halves are added for two vectors at a time, then quarters for all four: a lane is what vf_fold4 makes of one. */
	__m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
	__m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
	__m512 s = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));

	s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
	s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
	_mm_storeu_ps(
		out, _mm512_castps512_ps128(_mm512_permutexvar_ps(_mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12)), s)));
}

static inline float
vf_sum(vf x)
{
	__m128 s = vf_fold4(x);

	s = _mm_hadd_ps(s, s);
	return _mm_cvtss_f32(_mm_hadd_ps(s, s));
}

static inline float
vf_hmax(vf x)
{
	return _mm512_reduce_max_ps(x);
}

static inline vf
vf_abs(vf x)
{
	return _mm512_abs_ps(x);
}

/* Rounds to the nearest integers, which must fit. */
static inline void
vf_store_i8(int8_t *p, vf x)
{
	_mm_storeu_si128((__m128i *) p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}

static inline vf
vf_load_i8(const int8_t *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p)));
}

static inline vf
vf_load_u8(const uint8_t *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) p)));
}

/* ---- bytes, four to each of VF_WIDTH lanes, and 32-bit integers ---- */

typedef __m512i vi;

static inline vi
vi_load(const void *p)
{
	return _mm512_loadu_si512(p);
}

static inline vi
vi_set(int32_t x)
{
	return _mm512_set1_epi32(x);
}

static inline vi
vi_bytes(int x)
{
	return _mm512_set1_epi8((char) x);
}

static inline vi
vi_and(vi a, vi b)
{
	return _mm512_and_si512(a, b);
}

static inline vi
vi_or(vi a, vi b)
{
	return _mm512_or_si512(a, b);
}

/* Shifts of bytes; what is shifted in from a neighbour is to be masked off. */
static inline vi
vi_shift_left(vi x, int n)
{
	return _mm512_slli_epi16(x, (unsigned) n);
}

static inline vi
vi_shift_right(vi x, int n)
{
	return _mm512_srli_epi16(x, (unsigned) n);
}

static inline vi
vi_shift_left32(vi x, int n)
{
	return _mm512_slli_epi32(x, (unsigned) n);
}

static inline vf
vi_to_vf(vi x)
{
	return _mm512_cvtepi32_ps(x);
}

/* acc + the dot product of each lane's four unsigned bytes with the four signed ones at x; wide: they may exceed 127 */
static inline vi
vi_dot(vi acc, vi w, const int8_t *x, bool wide)
{
	int32_t four;
	vi xs;

	memcpy(&four, x, sizeof four);
	xs = _mm512_set1_epi32(four);
#ifdef __AVX512VNNI__
	(void) wide;
	return _mm512_dpbusd_epi32(acc, w, xs);
#else
	const vi ones = _mm512_set1_epi16(1);

	/* pairs of products are added in 16 bits with saturation: 127 * 127 * 2 fits, so the top bit goes by itself */
	if (wide)
	{
		vi top = _mm512_and_si512(w, _mm512_set1_epi8((char) 0x80));

		w = _mm512_xor_si512(w, top);
		acc = _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(top, xs), ones));
	}
	return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(w, xs), ones));
#endif
}
