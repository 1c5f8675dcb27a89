/*
 * testing.h - what the unit tests share: cmocka with its prerequisites, a reproducible random
 * source, and checks that say what failed.
 */
#ifndef M1_TEST_TESTING_H
#define M1_TEST_TESTING_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/status.h"

/*
 * How often what must hold however often it comes is repeated. Sanitizers look at code that runs, not at how often it
 * does, and take three times as long: the numbers are those of the other run.
 */
#ifdef __SANITIZE_ADDRESS__
#define REPEATED(n) (((n) + 2) / 3)
#else
#define REPEATED(n) (n)
#endif

/* xorshift: the same numbers in every run */
static inline uint32_t
test_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t) (*state >> 32);
}

/* uniform in [-1, 1) */
static inline float
test_random_float(uint64_t *state)
{
	return (float) ((double) test_random(state) / 2147483648.0 - 1.0);
}

/* The caller frees them. */
static inline float *
test_random_floats(uint64_t *state, size_t n)
{
	float *x = malloc(n * sizeof *x);

	assert_non_null(x);
	for (size_t i = 0; i < n; i++)
		x[i] = test_random_float(state);
	return x;
}

/* Of what was computed from what is right, as a share of the latter's size. */
static inline double
test_distance(const float *got, const float *want, size_t n)
{
	double error = 0;
	double size = 0;

	for (size_t i = 0; i < n; i++)
	{
		error += ((double) got[i] - want[i]) * ((double) got[i] - want[i]);
		size += (double) want[i] * want[i];
	}
	return sqrt(error / size);
}

/* A character as UTF-8, surrogates too; returns its bytes, at most 4. */
static inline size_t
test_put_character(unsigned c, char *out)
{
	if (c < 0x80)
	{
		out[0] = (char) c;
		return 1;
	}
	if (c < 0x800)
	{
		out[0] = (char) (0xC0 | c >> 6);
		out[1] = (char) (0x80 | (c & 63));
		return 2;
	}
	if (c < 0x10000)
	{
		out[0] = (char) (0xE0 | c >> 12);
		out[1] = (char) (0x80 | (c >> 6 & 63));
		out[2] = (char) (0x80 | (c & 63));
		return 3;
	}
	out[0] = (char) (0xF0 | c >> 18);
	out[1] = (char) (0x80 | (c >> 12 & 63));
	out[2] = (char) (0x80 | (c >> 6 & 63));
	out[3] = (char) (0x80 | (c & 63));
	return 4;
}

/* Writes a file into a folder of build, which is made if need be. */
static inline void
test_write_file(const char *folder, const char *name, const void *data, size_t len)
{
	char path[200];
	FILE *f;

	mkdir("build", 0777);
	mkdir(folder, 0777);
	snprintf(path, sizeof path, "%s/%s", folder, name);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

#ifdef _GNU_SOURCE /* realpath, symlink */
#include <unistd.h>

/* Makes `link` a link to a file of the checkout; anything of that name is removed. */
static inline void
test_link(const char *file, const char *link)
{
	char *path = realpath(file, NULL);

	assert_non_null(path);
	unlink(link);
	assert_int_equal(symlink(path, link), 0);
	free(path);
}
#endif

#define assert_ok(call)                                              \
	do                                                               \
	{                                                                \
		if ((call) != M1_OK)                                         \
			fail_msg("%s: %s (%s)", #call, err.message, err.detail); \
	} while (0)

#endif
