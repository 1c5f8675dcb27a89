/*
 * sort.h - qsort for arrays that may be empty: of none, C has no address, and qsort of NULL is not defined, even of no
 * elements.
 */
#ifndef M1_BASE_SORT_H
#define M1_BASE_SORT_H

#include <stdlib.h>

static inline void
m1_sort(void *elements, size_t n, size_t size, int (*compare)(const void *, const void *))
{
	if (n > 1)
		qsort(elements, n, size, compare);
}

#endif
