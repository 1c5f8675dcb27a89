/* simd_avx2.h - the vector vocabulary on AVX2 with FMA and F16C; see cpu_isa.h. */
#include <immintrin.h>
#include <string.h>

#define VF_NAME "AVX2"
#define VF_WIDTH 8
#define VF_DOT_ROWS 2
#define VF_QDOT_ROWS 4
#define VF_MAC_ROWS 6
#define VF_MAC_VECS 2
#define VF_MAC_TALL 8 /* rows of narrower tiles */

typedef __m256 vf;

static inline __m256i
vf_mask(int n)
{
	return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf
vf_set(float x)
{
	return _mm256_set1_ps(x);
}

static inline vf
vf_load(const float *p)
{
	return _mm256_loadu_ps(p);
}

/* Loads n < VF_WIDTH elements, the rest zero. */
static inline vf
vf_load_n(const float *p, int n)
{
	return _mm256_maskload_ps(p, vf_mask(n));
}

static inline void
vf_store(float *p, vf x)
{
	_mm256_storeu_ps(p, x);
}

static inline void
vf_store_n(float *p, vf x, int n)
{
	_mm256_maskstore_ps(p, vf_mask(n), x);
}

static inline vf
vf_widen_bf16(__m128i h)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* AVX2 has no masked load of 16-bit elements: go through a zeroed copy. */
static inline __m128i
vf_load_u16_n(const uint16_t *p, int n)
{
	uint16_t copy[8] = {0};

	memcpy(copy, p, (size_t) n * sizeof *p);
	return _mm_loadu_si128((const __m128i *) copy);
}

static inline vf
vf_load_bf16(const uint16_t *p)
{
	return vf_widen_bf16(_mm_loadu_si128((const __m128i *) p));
}

static inline vf
vf_load_bf16_n(const uint16_t *p, int n)
{
	return vf_widen_bf16(vf_load_u16_n(p, n));
}

static inline vf
vf_load_f16(const uint16_t *p)
{
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
}

static inline vf
vf_load_f16_n(const uint16_t *p, int n)
{
	return _mm256_cvtph_ps(vf_load_u16_n(p, n));
}

/* e4m3 numbers (blocks.h), which are never NaN, divided by 256. */
static inline vf
vf_load_e4m3(const uint8_t *p)
{
	/* as halves: the sign stays on top, below it a zero and the number's other bits */
	__m128i high = _mm_slli_epi16(_mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *) p)), 8);

	return _mm256_cvtph_ps(_mm_and_si128(_mm_srai_epi16(high, 1), _mm_set1_epi16((short) 0xbfff)));
}

static inline vf
vf_add(vf a, vf b)
{
	return _mm256_add_ps(a, b);
}

static inline vf
vf_sub(vf a, vf b)
{
	return _mm256_sub_ps(a, b);
}

static inline vf
vf_mul(vf a, vf b)
{
	return _mm256_mul_ps(a, b);
}

static inline vf
vf_div(vf a, vf b)
{
	return _mm256_div_ps(a, b);
}

static inline vf
vf_max(vf a, vf b)
{
	return _mm256_max_ps(a, b);
}

/* a * b + c */
static inline vf
vf_fma(vf a, vf b, vf c)
{
	return _mm256_fmadd_ps(a, b, c);
}

static inline vf
vf_round(vf x)
{
	return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* x * 2^n for integral n in [-126, 127] */
static inline vf
vf_scale2(vf x, vf n)
{
	__m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);

	return _mm256_mul_ps(x, _mm256_castsi256_ps(e));
}

/* x where test >= limit, else 0 */
static inline vf
vf_keep_if_ge(vf x, vf test, vf limit)
{
	return _mm256_and_ps(x, _mm256_cmp_ps(test, limit, _CMP_GE_OQ));
}

static inline __m128
vf_fold4(vf x)
{
	return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
}

/* The sums of four vectors, each in the order of vf_sum. */
static inline void
vf_sum4(vf a, vf b, vf c, vf d, float out[4])
{
	_mm_storeu_ps(out, _mm_hadd_ps(_mm_hadd_ps(vf_fold4(a), vf_fold4(b)), _mm_hadd_ps(vf_fold4(c), vf_fold4(d))));
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
	__m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

	m = _mm_max_ps(m, _mm_movehl_ps(m, m));
	return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

static inline vf
vf_abs(vf x)
{
	return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

/* Rounds to the nearest integers, which must fit. */
static inline void
vf_store_i8(int8_t *p, vf x)
{
	__m256i n = _mm256_cvtps_epi32(x);
	__m128i half = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));

	_mm_storel_epi64((__m128i *) p, _mm_packs_epi16(half, half));
}

static inline vf
vf_load_i8(const int8_t *p)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p)));
}

static inline vf
vf_load_u8(const uint8_t *p)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *) p)));
}

/* ---- bytes, four to each of VF_WIDTH lanes, and 32-bit integers ---- */

typedef __m256i vi;

static inline vi
vi_load(const void *p)
{
	return _mm256_loadu_si256((const __m256i *) p);
}

static inline vi
vi_set(int32_t x)
{
	return _mm256_set1_epi32(x);
}

static inline vi
vi_bytes(int x)
{
	return _mm256_set1_epi8((char) x);
}

static inline vi
vi_and(vi a, vi b)
{
	return _mm256_and_si256(a, b);
}

static inline vi
vi_or(vi a, vi b)
{
	return _mm256_or_si256(a, b);
}

/* Shifts of bytes; what is shifted in from a neighbour is to be masked off. */
static inline vi
vi_shift_left(vi x, int n)
{
	return _mm256_slli_epi16(x, n);
}

static inline vi
vi_shift_right(vi x, int n)
{
	return _mm256_srli_epi16(x, n);
}

static inline vi
vi_shift_left32(vi x, int n)
{
	return _mm256_slli_epi32(x, n);
}

static inline vf
vi_to_vf(vi x)
{
	return _mm256_cvtepi32_ps(x);
}

/* acc + the dot product of each lane's four unsigned bytes with the four signed ones at x; wide: they may exceed 127 */
static inline vi
vi_dot(vi acc, vi w, const int8_t *x, bool wide)
{
	const vi ones = _mm256_set1_epi16(1);
	int32_t four;
	vi xs;

	memcpy(&four, x, sizeof four);
	xs = _mm256_set1_epi32(four);
	/* pairs of products are added in 16 bits with saturation: 127 * 127 * 2 fits, so the top bit goes by itself */
	if (wide)
	{
		vi top = _mm256_and_si256(w, _mm256_set1_epi8((char) 0x80));

		w = _mm256_xor_si256(w, top);
		acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(top, xs), ones));
	}
	return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, xs), ones));
}
