/* block.c - see block.h. */
#define _GNU_SOURCE 1 /* mremap, explicit_bzero; as PostgreSQL defines it, in whose library this is, too */
#include "base/block.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LARGE ((size_t) 1 << 20)

void *
m1_block_create(size_t bytes)
{
	void *block;

	if (bytes < LARGE)
		return malloc(bytes);
	block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return block == MAP_FAILED ? NULL : block;
}

void *
m1_block_grow(void *block, size_t bytes, size_t grown)
{
	void *larger;

	if (bytes >= LARGE)
	{
		larger = mremap(block, bytes, grown, MREMAP_MAYMOVE);
		return larger == MAP_FAILED ? NULL : larger;
	}
	/* Not realloc, which would leave the old block as it is. */
	if ((larger = m1_block_create(grown)) == NULL)
		return NULL;
	memcpy(larger, block, bytes);
	m1_block_free(block, bytes);
	return larger;
}

void
m1_block_free(void *block, size_t bytes)
{
	if (block == NULL)
		return;
	if (bytes >= LARGE)
	{
		munmap(block, bytes);
		return;
	}
	explicit_bzero(block, bytes);
	free(block);
}
