/*
 * weights.cuh - eight weights of a row as floats, for every stored type: the one
 * place that knows the layouts of m1k.h. Memory is read in the widest aligned
 * pieces that eight weights fill.
 */
#ifndef M1K_WEIGHTS_CUH
#define M1K_WEIGHTS_CUH

#include "device.cuh"

/* load(row, cols, k, w): weights k .. k + 7 of a row, k a multiple of 8. */
template <m1k_type Type> struct m1k_weights;

__device__ __forceinline__ uint16_t
m1k_u16_at(const uint8_t *at)
{
	return *reinterpret_cast<const uint16_t *>(at);
}

template <> struct m1k_weights<M1K_F32>
{
	static __device__ __forceinline__ void load(const uint8_t *row, int, int k, float (&w)[8])
	{
		const float4 *from = reinterpret_cast<const float4 *>(row + 4 * static_cast<size_t>(k));
		const float4 a = from[0];
		const float4 b = from[1];

		w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w;
		w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
	}
};

template <> struct m1k_weights<M1K_F16>
{
	static __device__ __forceinline__ void load(const uint8_t *row, int, int k, float (&w)[8])
	{
		const uint4 x = *reinterpret_cast<const uint4 *>(row + 2 * static_cast<size_t>(k));
		const uint32_t pairs[4] = {x.x, x.y, x.z, x.w};

#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			w[2 * i] = m1k_from_half(static_cast<uint16_t>(pairs[i]));
			w[2 * i + 1] = m1k_from_half(static_cast<uint16_t>(pairs[i] >> 16));
		}
	}
};

template <> struct m1k_weights<M1K_BF16>
{
	static __device__ __forceinline__ void load(const uint8_t *row, int, int k, float (&w)[8])
	{
		const uint4 x = *reinterpret_cast<const uint4 *>(row + 2 * static_cast<size_t>(k));
		const uint32_t pairs[4] = {x.x, x.y, x.z, x.w};

#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			w[2 * i] = __uint_as_float(pairs[i] << 16);
			w[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
		}
	}
};

/* Byte i of eight bytes that were read as two words. */
__device__ __forceinline__ int
m1k_byte(uint2 x, int i)
{
	return static_cast<int>((i < 4 ? x.x >> 8 * i : x.y >> 8 * (i - 4)) & 255);
}

template <> struct m1k_weights<M1K_Q8_0>
{
	static __device__ __forceinline__ void load(const uint8_t *row, int cols, int k, float (&w)[8])
	{
		const uint2 q = *reinterpret_cast<const uint2 *>(row + k);
		const float d = m1k_from_half(m1k_u16_at(row + cols + k / 32 * 2));

#pragma unroll
		for (int i = 0; i < 8; i++)
			w[i] = d * static_cast<float>(static_cast<int8_t>(m1k_byte(q, i)));
	}
};

template <> struct m1k_weights<M1K_Q4_0>
{
	static __device__ __forceinline__ void load(const uint8_t *row, int cols, int k, float (&w)[8])
	{
		const uint2 q = *reinterpret_cast<const uint2 *>(row + k / 32 * 16 + k % 16);
		const float d = m1k_from_half(m1k_u16_at(row + cols / 2 + k / 32 * 2));
		const int shift = k % 32 / 16 * 4;

#pragma unroll
		for (int i = 0; i < 8; i++)
			w[i] = d * static_cast<float>((m1k_byte(q, i) >> shift & 15) - 8);
	}
};

/* Scale and minimum of group g of a Q4_K or Q5_K block: w = scale * q - minimum. */
__device__ __forceinline__ void
m1k_k_group(const uint8_t *block, int g, float *scale, float *minimum)
{
	const uint8_t *s = block + 4;
	int sc, mn;

	if (g < 4)
	{
		sc = s[g] & 63;
		mn = s[g + 4] & 63;
	}
	else
	{
		sc = (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
		mn = s[g + 4] >> 4 | s[g] >> 6 << 4;
	}
	*scale = m1k_from_half(m1k_u16_at(block)) * static_cast<float>(sc);
	*minimum = m1k_from_half(m1k_u16_at(block + 2)) * static_cast<float>(mn);
}

template <> struct m1k_weights<M1K_Q4_K>
{
	static __device__ __forceinline__ void load(const uint8_t *row, int, int k, float (&w)[8])
	{
		const uint8_t *block = row + static_cast<size_t>(k / 256) * 144;
		const int g = k % 256 / 32;
		const uint2 q = *reinterpret_cast<const uint2 *>(block + 16 + g / 2 * 32 + k % 32);
		float scale, minimum;

		m1k_k_group(block, g, &scale, &minimum);
#pragma unroll
		for (int i = 0; i < 8; i++)
			w[i] = scale * static_cast<float>(m1k_byte(q, i) >> g % 2 * 4 & 15) - minimum;
	}
};

template <> struct m1k_weights<M1K_Q5_K>
{
	static __device__ __forceinline__ void load(const uint8_t *row, int, int k, float (&w)[8])
	{
		const uint8_t *block = row + static_cast<size_t>(k / 256) * 176;
		const int g = k % 256 / 32;
		const uint2 high = *reinterpret_cast<const uint2 *>(block + 16 + k % 32);
		uint2 q = *reinterpret_cast<const uint2 *>(block + 48 + g / 2 * 32 + k % 32);
		float scale, minimum;

		m1k_k_group(block, g, &scale, &minimum);
		q.x = (q.x >> g % 2 * 4 & 0x0f0f0f0fu) | (high.x >> g & 0x01010101u) << 4;
		q.y = (q.y >> g % 2 * 4 & 0x0f0f0f0fu) | (high.y >> g & 0x01010101u) << 4;
#pragma unroll
		for (int i = 0; i < 8; i++)
			w[i] = scale * static_cast<float>(m1k_byte(q, i)) - minimum;
	}
};

template <> struct m1k_weights<M1K_Q6_K>
{
	static __device__ __forceinline__ void load(const uint8_t *row, int cols, int k, float (&w)[8])
	{
		const int block = k / 256;
		const int half = k % 256 / 128;
		const int quarter = k % 128 / 32;
		const uint2 low = *reinterpret_cast<const uint2 *>(row + block * 128 + half * 64 + quarter % 2 * 32 + k % 32);
		const uint2 high = *reinterpret_cast<const uint2 *>(row + cols / 2 + block * 64 + half * 32 + k % 32);
		const uint8_t *scales = row + cols / 2 + cols / 4;
		const float d = m1k_from_half(m1k_u16_at(scales + cols / 16 + block * 2)) *
						static_cast<float>(static_cast<int8_t>(scales[k / 16]));

#pragma unroll
		for (int i = 0; i < 8; i++)
			w[i] = d *
				   static_cast<float>(
					   ((m1k_byte(low, i) >> quarter / 2 * 4 & 15) | (m1k_byte(high, i) >> 2 * quarter & 3) << 4) - 32);
	}
};

/* Four e4m3 numbers, which are never NaN, times scale. */
__device__ __forceinline__ void
m1k_from_e4m3(uint32_t four, float scale, float *w)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
	uint32_t pairs[2];

	asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pairs[0]) : "h"(static_cast<uint16_t>(four)));
	asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pairs[1]) : "h"(static_cast<uint16_t>(four >> 16)));
	w[0] = scale * m1k_from_half(static_cast<uint16_t>(pairs[0]));
	w[1] = scale * m1k_from_half(static_cast<uint16_t>(pairs[0] >> 16));
	w[2] = scale * m1k_from_half(static_cast<uint16_t>(pairs[1]));
	w[3] = scale * m1k_from_half(static_cast<uint16_t>(pairs[1] >> 16));
#else
	/* with its bits in a half's place, a number is 256 times too small; two at a time, with a byte between them */
#pragma unroll
	for (int odd = 0; odd < 2; odd++)
	{
		const uint32_t two = four >> 8 * odd;
		const uint32_t halves = (two & 0x00800080u) << 8 | (two & 0x007f007fu) << 7;

		w[odd] = 256.0f * scale * m1k_from_half(static_cast<uint16_t>(halves));
		w[odd + 2] = 256.0f * scale * m1k_from_half(static_cast<uint16_t>(halves >> 16));
	}
#endif
}

template <> struct m1k_weights<M1K_F8_E4M3>
{
	static __device__ __forceinline__ void load(const uint8_t *row, int cols, int k, float (&w)[8])
	{
		const uint2 q = *reinterpret_cast<const uint2 *>(row + k);
		const float scale = *reinterpret_cast<const float *>(row + cols + k / 128 * 4);

		m1k_from_e4m3(q.x, scale, w);
		m1k_from_e4m3(q.y, scale, w + 4);
	}
};

template <m1k_type Type> struct m1k_type_tag
{
	static constexpr m1k_type value = Type;
};

/* Calls f with the type as a compile-time value. */
template <typename F>
static inline void
m1k_with_type(m1k_type type, F f)
{
	switch (type)
	{
		case M1K_F32:
			return f(m1k_type_tag<M1K_F32>());
		case M1K_F16:
			return f(m1k_type_tag<M1K_F16>());
		case M1K_BF16:
			return f(m1k_type_tag<M1K_BF16>());
		case M1K_Q8_0:
			return f(m1k_type_tag<M1K_Q8_0>());
		case M1K_Q4_0:
			return f(m1k_type_tag<M1K_Q4_0>());
		case M1K_Q4_K:
			return f(m1k_type_tag<M1K_Q4_K>());
		case M1K_Q5_K:
			return f(m1k_type_tag<M1K_Q5_K>());
		case M1K_Q6_K:
			return f(m1k_type_tag<M1K_Q6_K>());
		case M1K_F8_E4M3:
			return f(m1k_type_tag<M1K_F8_E4M3>());
	}
}

#endif
