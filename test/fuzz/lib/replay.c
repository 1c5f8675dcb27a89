/*
 * replay.c - runs a fuzz target without libFuzzer: all inputs that are kept, then some that are made of them, the same in
 * every run.
 *
 * TARGET EXECUTIONS FILE...: prints "ok" lines for test/run.sh, and how fast it was.
 */
#define _GNU_SOURCE /* clock_gettime */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_BYTES 4096
#define MOST_FILES 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input, in memory of exactly its size, so that reading beyond it is noticed. */
typedef struct input
{
	uint8_t *data;
	size_t size;
} input;

static input inputs[MOST_FILES];
static int n_inputs;
static uint64_t seed = 20;

static uint32_t
random_below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t) (seed >> 32) % n;
}

static void
run(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size > 0 ? size : 1);

	if (copy == NULL)
		abort();
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static void
read_input(const char *path)
{
	FILE *file = fopen(path, "rb");
	input *in = &inputs[n_inputs++];

	if (file == NULL || fseek(file, 0, SEEK_END) != 0)
	{
		perror(path);
		exit(1);
	}
	in->size = (size_t) ftell(file);
	rewind(file);
	if ((in->data = malloc(in->size + 1)) == NULL || fread(in->data, 1, in->size, file) != in->size)
		abort();
	fclose(file);
}

/* Bytes of one input that are changed, cut out, doubled, or replaced by a part of another one. */
static size_t
mutate(uint8_t *data, size_t size)
{
	const input *other = &inputs[random_below((uint32_t) n_inputs)];

	for (uint32_t n = 1 + random_below(4); n > 0 && size > 0; n--)
	{
		const size_t at = random_below((uint32_t) size);
		const size_t len = 1 + random_below((uint32_t) (size - at < 16 ? size - at : 16));

		switch (random_below(5))
		{
			case 0:
				data[at] ^= (uint8_t) (1u << random_below(8));
				break;
			case 1:
				data[at] = (uint8_t) random_below(256);
				break;
			case 2:
				memmove(data + at, data + at + len, size - at - len);
				size -= len;
				break;
			case 3:
				if (size + len > MOST_BYTES)
					break;
				memmove(data + at + len, data + at, size - at);
				size += len;
				break;
			default:
				if (at < other->size)
					memcpy(data + at, other->data + at, other->size - at < len ? other->size - at : len);
		}
	}
	return size;
}

static void
run_mutants(long n)
{
	static uint8_t data[MOST_BYTES];

	for (long i = 0; i < n && n_inputs > 0; i++)
	{
		const input *from = &inputs[random_below((uint32_t) n_inputs)];
		const size_t size = from->size < MOST_BYTES ? from->size : MOST_BYTES;

		memcpy(data, from->data, size);
		run(data, mutate(data, size));
	}
}

int
main(int argc, char **argv)
{
	const long mutants = argc > 1 ? atol(argv[1]) : 0;
	struct timespec start, end;

	clock_gettime(CLOCK_MONOTONIC, &start);
	run((const uint8_t *) "", 0);
	for (int i = 2; i < argc && n_inputs < MOST_FILES; i++)
	{
		read_input(argv[i]);
		run(inputs[n_inputs - 1].data, inputs[n_inputs - 1].size);
	}
	printf("ok the %d inputs that are kept\n", n_inputs);
	run_mutants(mutants);
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("ok %ld made of them\ndone after %.1f s\n", mutants,
		   (double) (end.tv_sec - start.tv_sec) + (double) (end.tv_nsec - start.tv_nsec) * 1e-9);
	for (int i = 0; i < n_inputs; i++)
		free(inputs[i].data);
	return 0;
}
