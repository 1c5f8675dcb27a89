/* simd_avx512.h - the vector vocabulary of cpu_kernels.c on AVX-512 F/BW/DQ/VL. */
#include <immintrin.h>

#define VF_NAME "AVX-512"
#define VF_WIDTH 16
#define VF_DOT_ROWS 6 /* tile of dot: 6 x rows by 4 weight rows fills 24 of 32 registers */
#define VF_MAC_ROWS 6
#define VF_MAC_VECS 4

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
	return _mm512_reduce_max_ps(x);
}
