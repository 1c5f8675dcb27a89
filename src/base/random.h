/*
 * random.h - random numbers that are counted, not drawn from a stream: number n of a seed is the same whatever else was
 * asked for before.
 */
#ifndef M1_BASE_RANDOM_H
#define M1_BASE_RANDOM_H

#include <stdint.h>

/* A well-mixed 64-bit value of seed and number: two rounds of a multiply-xorshift finaliser. */
static inline uint64_t
m1_random_bits(uint64_t seed, uint64_t number)
{
	uint64_t z = seed ^ (number + 1) * 0x9e3779b97f4a7c15u;

	for (int round = 0; round < 2; round++)
	{
		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
		z = (z ^ z >> 27) * 0x94d049bb133111ebu;
		z ^= z >> 31;
		z += seed;
	}
	return z;
}

/* Uniform in [0, 1), 53 bits. */
static inline double
m1_random_uniform(uint64_t seed, uint64_t number)
{
	return (double) (m1_random_bits(seed, number) >> 11) * 0x1p-53;
}

#endif
