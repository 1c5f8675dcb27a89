/*
 * emulated_device.h - CUDA's language for kernels that are compiled as ordinary C++:
 * thread indexes, shared memory, barriers, warp exchanges, and the instructions of
 * device.cuh written out from their documentation.
 *
 * One block runs at a time, its threads as fibers that change at barriers and warp
 * exchanges. Which thread goes first is drawn anew for each block, and shared memory
 * starts as garbage, so that a missing barrier or an unwritten value shows. A barrier
 * that some threads never reach ends the program.
 */
#ifndef EMULATED_DEVICE_H
#define EMULATED_DEVICE_H

#include <cuda_runtime.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
/* one block at a time: an ordinary static is the block's own */
#define __shared__ static

struct uint3
{
	unsigned x, y, z;
};

struct dim3
{
	unsigned x, y, z;
	dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
	{
	}
};

struct uint2
{
	uint32_t x, y;
};

struct alignas(16) uint4
{
	uint32_t x, y, z, w;
};

struct alignas(8) float2
{
	float x, y;
};

struct alignas(16) float4
{
	float x, y, z, w;
};

static inline uint4
make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
	return {x, y, z, w};
}

static inline float2
make_float2(float x, float y)
{
	return {x, y};
}

static inline float4
make_float4(float x, float y, float z, float w)
{
	return {x, y, z, w};
}

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

/* ---- launches ---- */

[[noreturn]] void emulated_give_up(const char *why);
void emulated_launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &thread);
void *emulated_dynamic_shared(void);

/* What stands between the fields of a structure is whatever was there before. */
template <typename T>
static inline bool
emulated_argument_points_to_host(T argument)
{
	__builtin_clear_padding(&argument);
	return emulated_points_to_host(&argument, sizeof argument);
}

/* Arguments are looked at while it is launched, and used when it runs. */
template <typename... T>
static inline void
emulated_check_arguments(const char *why, const std::tuple<T...> &arguments)
{
	const bool wrong =
		std::apply([](const auto &...a) { return (emulated_argument_points_to_host(a) || ...); }, arguments);

	if (wrong)
		emulated_give_up(why);
}

#define M1K_LAUNCH(kernel, grid, block, shared, stream, ...)                                                          \
	do                                                                                                                \
	{                                                                                                                 \
		auto emulated_grid = dim3(grid);                                                                              \
		auto emulated_block = dim3(block);                                                                            \
		size_t emulated_shared = shared;                                                                              \
		auto emulated_arguments = std::make_tuple(__VA_ARGS__);                                                       \
		if (!emulated_shared_is_allowed((const void *) (kernel), emulated_shared))                                    \
			emulated_give_up(#kernel " is launched with more shared memory than was asked for");                      \
		emulated_check_arguments(#kernel " is given a pointer into the host's memory", emulated_arguments);           \
		emulated_enqueue(stream,                                                                                      \
						 [=]                                                                                          \
						 {                                                                                            \
							 emulated_launch(emulated_grid, emulated_block, emulated_shared,                          \
											 [&]                                                                      \
											 { std::apply([](auto... a) { (kernel)(a...); }, emulated_arguments); }); \
						 });                                                                                          \
	} while (0)

#define M1K_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(emulated_dynamic_shared())

/* ---- what threads do together ---- */

void __syncthreads(void);
void __syncwarp(void);
/* Every lane of the warp gives a value and sees all 32, until its next exchange. */
const uint32_t *emulated_exchange(const uint32_t *mine, int words);
/* Every lane gives its six registers of a and b of a product (see m1k_mma) and sees all of it, until its next one. */
const float (*emulated_product(const uint32_t *mine))[8];

/*
 * Exchanges are most of the time of short kernels. Only the first block of a launch makes those of a warp's sum one by one;
 * the others have the last lane that comes add up, in the same order, and so to the same bits.
 */
template <typename T> T emulated_warp_sum(T x);

static inline bool
emulated_first_block(void)
{
	return (blockIdx.x | blockIdx.y | blockIdx.z) == 0;
}

template <typename T>
static inline T
__shfl_xor_sync(unsigned, T x, int lanes)
{
	static_assert(sizeof(T) == 4 || sizeof(T) == 8);
	constexpr int words = sizeof(T) / 4;
	uint32_t bits[words];

	memcpy(bits, &x, sizeof x);
	memcpy(&x, emulated_exchange(bits, words) + ((threadIdx.x % 32) ^ lanes) * words, sizeof x);
	return x;
}

static inline unsigned
__ballot_sync(unsigned, bool vote)
{
	const uint32_t mine = vote;
	const uint32_t *all = emulated_exchange(&mine, 1);
	unsigned votes = 0;

	for (int i = 0; i < 32; i++)
		votes |= all[i] << i;
	return votes;
}

/* Fibers change nowhere else: nothing comes between reading and writing. */
template <typename T>
static inline T
atomicAdd(T *at, T x)
{
	const T before = *at;

	*at += x;
	return before;
}

template <typename T>
static inline T
atomicMax(T *at, T x)
{
	const T before = *at;

	*at = x > before ? x : before;
	return before;
}

/* ---- arithmetic ---- */

static inline int
__popc(unsigned x)
{
	return __builtin_popcount(x);
}

static inline float
__uint_as_float(uint32_t bits)
{
	float x;

	memcpy(&x, &bits, 4);
	return x;
}

static inline uint32_t
__float_as_uint(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, 4);
	return bits;
}

struct emulated_half
{
	uint16_t bits;
};

static inline emulated_half
__ushort_as_half(uint16_t bits)
{
	return {bits};
}

static inline float
__half2float(emulated_half h)
{
	const int exponent = h.bits >> 10 & 31;
	const float fraction = static_cast<float>(h.bits & 1023);
	const float x = exponent == 31	? (fraction > 0 ? NAN : INFINITY)
					: exponent == 0 ? ldexpf(fraction, -24)
									: ldexpf(1024.0f + fraction, exponent - 25);

	return h.bits & 0x8000 ? -x : x;
}

/* Under a name of its own: C23's library, glibc since 2.43, declares one that is no device function. */
static inline float
emulated_rsqrtf(float x)
{
	return 1.0f / sqrtf(x);
}
#define rsqrtf emulated_rsqrtf

extern bool emulated_exponentials_up;

static inline float
emulated_expf(float x)
{
	const float y = expf(x);

	return emulated_exponentials_up ? nextafterf(y, INFINITY) : y;
}
#define expf emulated_expf

/* ---- instructions ---- */

static inline float
emulated_bf16(uint32_t pair, int which)
{
	return __uint_as_float(which == 0 ? pair << 16 : pair & 0xffff0000u);
}

/* mma.m16n8k16: with g = lane / 4 and i = lane % 4, register r of c has c[g + 8 (r / 2)][2 i + r % 2]. */
static inline void
m1k_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
	const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
	const float(*product)[8] = emulated_product(mine);
	const int lane = threadIdx.x % 32;

	for (int r = 0; r < 4; r++)
		c[r] += product[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
}

/*
 * ldmatrix.x4: lane i addresses row i % 8 of piece i / 8; a lane receives [lane / 4][lane % 4 * 2 ...] of each piece.
 */
static inline void
emulated_rows(const uint16_t *(&rows)[32], const void *row)
{
	uint32_t mine[2];
	const uint32_t *all;

	static_assert(sizeof row == sizeof mine);
	memcpy(mine, &row, sizeof row);
	all = emulated_exchange(mine, 2);
	for (int i = 0; i < 32; i++)
		memcpy(&rows[i], all + 2 * i, sizeof row);
}

static inline void
m1k_load_matrices(uint32_t (&r)[4], const void *row)
{
	const uint16_t *rows[32];
	const int lane = threadIdx.x % 32;

	emulated_rows(rows, row);
	for (int i = 0; i < 4; i++)
	{
		const uint16_t *from = rows[i * 8 + lane / 4] + lane % 4 * 2;

		r[i] = from[0] | static_cast<uint32_t>(from[1]) << 16;
	}
}

static inline void
m1k_load_matrices_transposed(uint32_t (&r)[4], const void *row)
{
	const uint16_t *rows[32];
	const int lane = threadIdx.x % 32;

	emulated_rows(rows, row);
	for (int i = 0; i < 4; i++)
		r[i] = rows[i * 8 + lane % 4 * 2][lane / 4] | static_cast<uint32_t>(rows[i * 8 + lane % 4 * 2 + 1][lane / 4])
														  << 16;
}

/* Copies take effect at the wait, as late as the device may: what is read before it is garbage. */
void m1k_copy_async(void *to, const void *from, bool valid);
void m1k_copy_commit(void);
void emulated_copy_wait(int pending);

template <int Pending>
static inline void
m1k_copy_wait()
{
	emulated_copy_wait(Pending);
}

/* cvt.rn.bf16x2.f32: every NaN becomes the same one. */
static inline uint32_t
emulated_rounded(float x)
{
	const uint32_t bits = __float_as_uint(x);

	return isnan(x) ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static inline uint32_t
m1k_bf16_pair(float low, float high)
{
	return emulated_rounded(low) | emulated_rounded(high) << 16;
}

static inline float
m1k_exp2(float x)
{
	const float y = exp2f(x);

	return y < 0x1p-126f ? 0.0f : y;
}

#endif
