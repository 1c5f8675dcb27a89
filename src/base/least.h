/*
 * least.h - the smaller of two numbers.
 */
#ifndef M1_BASE_LEAST_H
#define M1_BASE_LEAST_H

#include <stddef.h>

static inline int
m1_min_int(int a, int b)
{
	return a < b ? a : b;
}

static inline size_t
m1_min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

#endif
