/*
 * device.cuh - what the kernels share: launches, warp and block sums, number
 * formats, and the instructions that have no C++ name (matrix multiply, matrix
 * load, asynchronous copy, rounding, powers of two). With M1K_EMULATED,
 * test/emulation provides those, and the threads.
 */
#ifndef M1K_DEVICE_CUH
#define M1K_DEVICE_CUH

#include "m1k.h"

#ifdef M1K_EMULATED
#include "emulated_device.h"
#else
#include <cuda_fp16.h>

#define M1K_LAUNCH(kernel, grid, block, shared, stream, ...) (kernel)<<<grid, block, shared, stream>>>(__VA_ARGS__)
/* The block's dynamic shared memory, as an array of `type` called `name`. */
#define M1K_DYNAMIC_SHARED(type, name)                  \
	extern __shared__ __align__(16) char m1k_dynamic[]; \
	type *name = reinterpret_cast<type *>(m1k_dynamic)

/* c += a b for a 16 x 16 piece of a (row-major) and a 16 x 8 piece of b (column-major), both bf16, c in fp32. */
__device__ __forceinline__ void
m1k_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
				 "{%0,%1,%2,%3};\n"
				 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8 x 8 pieces of 16-bit values; lane i gives the address of row i % 8 of piece i / 8. */
__device__ __forceinline__ void
m1k_load_matrices(uint32_t (&r)[4], const void *row)
{
	uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));

	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
				 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
				 : "r"(at)
				 : "memory");
}

/* The same, each piece transposed. */
__device__ __forceinline__ void
m1k_load_matrices_transposed(uint32_t (&r)[4], const void *row)
{
	uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));

	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
				 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
				 : "r"(at)
				 : "memory");
}

/* Starts copying 16 bytes to shared memory; zeros when there is nothing to copy. */
__device__ __forceinline__ void
m1k_copy_async(void *to, const void *from, bool valid)
{
	uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
	int bytes = valid ? 16 : 0;

	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" : : "r"(at), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void
m1k_copy_commit()
{
	asm volatile("cp.async.commit_group;\n" : : : "memory");
}

/* Until at most `Pending` of this thread's groups are under way. */
template <int Pending>
__device__ __forceinline__ void
m1k_copy_wait()
{
	asm volatile("cp.async.wait_group %0;\n" : : "n"(Pending) : "memory");
}

/* Two floats as bf16, rounded to nearest even; NaN stays NaN. */
__device__ __forceinline__ uint32_t
m1k_bf16_pair(float low, float high)
{
	uint32_t pair;

	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
	return pair;
}

/* 2^x to about two units in the last place; results too small for a normal number are 0. */
__device__ __forceinline__ float
m1k_exp2(float x)
{
	float y;

	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}
#endif

#define M1K_WARP 32
#define M1K_ALL 0xffffffffu /* every lane takes part: kernels never let single lanes of a warp leave */

static inline int
m1k_pieces(size_t n, int piece)
{
	return static_cast<int>((n + piece - 1) / piece);
}

template <typename T>
__device__ __forceinline__ T
m1k_warp_sum(T x)
{
#ifdef M1K_EMULATED
	if (!emulated_first_block())
		return emulated_warp_sum(x);
#endif
#pragma unroll
	for (int lane = M1K_WARP / 2; lane > 0; lane /= 2)
		x += __shfl_xor_sync(M1K_ALL, x, lane);
	return x;
}

__device__ __forceinline__ float
m1k_warp_max(float x)
{
#pragma unroll
	for (int lane = M1K_WARP / 2; lane > 0; lane /= 2)
		x = fmaxf(x, __shfl_xor_sync(M1K_ALL, x, lane));
	return x;
}

/* Sum over a block of up to 32 whole warps; every thread gets it. */
__device__ __forceinline__ float
m1k_block_sum(float x)
{
	__shared__ float sums[M1K_WARP];
	const int warp = threadIdx.x / M1K_WARP;
	const int lane = threadIdx.x % M1K_WARP;

	x = m1k_warp_sum(x);
	__syncthreads();
	if (lane == 0)
		sums[warp] = x;
	__syncthreads();
	return m1k_warp_sum(lane < static_cast<int>(blockDim.x) / M1K_WARP ? sums[lane] : 0.0f);
}

__device__ __forceinline__ float
m1k_sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

__device__ __forceinline__ float
m1k_silu_of(float x)
{
	return x * m1k_sigmoid(x);
}

/* ---- 16-bit floats, as bits ---- */

__device__ __forceinline__ float
m1k_from_bf16(uint32_t bits)
{
	return __uint_as_float(bits << 16);
}

__device__ __forceinline__ uint16_t
m1k_bf16_of(float x)
{
	return static_cast<uint16_t>(m1k_bf16_pair(x, 0.0f));
}

/* Eight floats times scale as bf16. */
__device__ __forceinline__ uint4
m1k_bf16_eight(const float *x, float scale)
{
	return make_uint4(m1k_bf16_pair(scale * x[0], scale * x[1]), m1k_bf16_pair(scale * x[2], scale * x[3]),
					  m1k_bf16_pair(scale * x[4], scale * x[5]), m1k_bf16_pair(scale * x[6], scale * x[7]));
}

__device__ __forceinline__ float
m1k_from_half(uint16_t bits)
{
	return __half2float(__ushort_as_half(bits));
}

#endif
