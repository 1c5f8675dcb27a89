/*
 * cuda_testing.h - what the tests of the CUDA backend share: how many devices there are, and how near results must be.
 */
#ifndef M1_TEST_CUDA_TESTING_H
#define M1_TEST_CUDA_TESTING_H

#include "testing.h"

#include <cuda_runtime.h>
#include <math.h>

#define EXACT 2e-5	 /* relative error of fp32 sums */
#define ROUNDED 8e-3 /* with bf16 operands */

static inline int
devices(void)
{
	int count = 0;

	return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

/* ||got - want|| / ||want||; NaN is never near */
static inline void
assert_near(const float *got, const float *want, size_t n, double tolerance, const char *what)
{
	double difference = 0;
	double size = 0;

	for (size_t i = 0; i < n; i++)
	{
		difference += ((double) got[i] - want[i]) * ((double) got[i] - want[i]);
		size += (double) want[i] * want[i];
	}
	if (!(sqrt(difference) <= tolerance * sqrt(size)))
		fail_msg("%s: off by %.3g of %.3g", what, sqrt(difference), sqrt(size));
}

#endif
