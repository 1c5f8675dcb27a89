/* learn.cuh - what the kernels of learning share. */
#ifndef M1K_LEARN_CUH
#define M1K_LEARN_CUH

#include "device.cuh"
#include "m1k_learn.h"

/* silu'(z) = s (1 + z (1 - s)) with s = sigmoid(z) */
__device__ __forceinline__ float
m1k_silu_slope(float z)
{
	const float s = m1k_sigmoid(z);

	return s * (1.0f + z * (1.0f - s));
}

#endif
