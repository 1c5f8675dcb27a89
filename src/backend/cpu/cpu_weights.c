/*
 * cpu_weights.c - matrices as the CPU backend keeps them: float types, F8_E4M3 among
 * them, stay where the caller has them; types of small integers are packed (cpu_packed.h)
 * into memory of our own, so that the caller may let go of the stored bytes.
 *
 * Packed matrices live in large chunks of address space with huge pages, freed as a
 * whole by close. Where the machine has several memory nodes, the chunks' pages are
 * spread over all of them: any thread may work on any part of a matrix.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MADV_HUGEPAGE, syscall */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blocks/blocks.h"
#include "backend/cpu/cpu_internal.h"

#define CHUNK_BYTES ((size_t) 64 << 20)
#define HUGE_PAGE ((size_t) 2 << 20)
#define MAX_NODES 64

typedef struct m1b_chunk
{
	struct m1b_chunk *next;
	char *memory;
	size_t bytes;
	size_t used;
} m1b_chunk;

/* ---- memory ---- */

/* The nodes of this machine as a bit mask; 0 when there is just one or the kernel does not tell. */
static unsigned long
memory_nodes(void)
{
	unsigned long nodes = 0;

	for (int node = 0; node < MAX_NODES; node++)
	{
		char path[64];

		snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", node);
		if (access(path, R_OK) == 0)
			nodes |= 1UL << node;
	}
	return (nodes & (nodes - 1)) == 0 ? 0 : nodes;
}

/* Best effort: memory that the kernel does not spread is used as it is. */
static void
spread_over_nodes(void *memory, size_t bytes)
{
#if defined(SYS_mbind)
	const int interleave = 3; /* MPOL_INTERLEAVE, whose header is not everywhere */
	const unsigned long nodes = memory_nodes();

	if (nodes != 0)
		syscall(SYS_mbind, memory, bytes, interleave, &nodes, (unsigned long) MAX_NODES + 1, 0);
#else
	(void) memory;
	(void) bytes;
#endif
}

static m1b_chunk *
new_chunk(size_t bytes)
{
	m1b_chunk *chunk = calloc(1, sizeof *chunk);

	if (chunk == NULL)
		return NULL;
	chunk->bytes = m1b_round_up(bytes, HUGE_PAGE);
	chunk->memory = mmap(NULL, chunk->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (chunk->memory == MAP_FAILED)
	{
		free(chunk);
		return NULL;
	}
	madvise(chunk->memory, chunk->bytes, MADV_HUGEPAGE);
	spread_over_nodes(chunk->memory, chunk->bytes);
	return chunk;
}

static uint8_t *
allocate(m1b_cpu *c, size_t bytes)
{
	m1b_chunk *chunk = c->chunks;

	bytes = m1b_round_up(bytes, M1B_LINE);
	if (chunk == NULL || chunk->bytes - chunk->used < bytes)
	{
		if ((chunk = new_chunk(bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES)) == NULL)
			return NULL;
		chunk->next = c->chunks;
		c->chunks = chunk;
	}
	chunk->used += bytes;
	return (uint8_t *) chunk->memory + chunk->used - bytes;
}

void
m1b_cpu_weights_free(m1b_cpu *c)
{
	while (c->chunks != NULL)
	{
		m1b_chunk *chunk = c->chunks;

		c->chunks = chunk->next;
		munmap(chunk->memory, chunk->bytes);
		free(chunk);
	}
}

/* ---- matrices ---- */

typedef struct pack_job
{
	m1b_dtype type;
	const void *stored;
	int rows, cols;
	uint8_t *packed;
	size_t panel_bytes;
} pack_job;

static void
pack_piece(void *arg, int panel, int worker)
{
	const pack_job *job = arg;

	(void) worker;
	m1b_pack_panel(job->type, job->stored, job->rows, job->cols, panel,
				   job->packed + (size_t) panel * job->panel_bytes);
}

m1_status
m1b_cpu_matrix(m1b_backend *b, const m1b_stored_matrix *p, m1b_matrix *out, bool *borrowed, m1_error *err)
{
	m1b_cpu *c = m1b_cpu_of(b);
	const int panels = (p->rows + M1B_PANEL_ROWS - 1) / M1B_PANEL_ROWS;
	pack_job job = {.type = p->type, .stored = p->host, .rows = p->rows, .cols = p->cols};

	*out = (m1b_matrix){.data = p->host, .type = p->type, .use = p->use, .rows = p->rows, .cols = p->cols};
	*borrowed = !m1b_is_integer(p->type) || p->use == M1B_USE_ROWS;
	if (p->cols % m1b_block_weights(p->type) != 0)
		return m1_fail(err, M1_E_CORRUPT, "a %s matrix cannot have %d columns", m1b_dtype_name(p->type), p->cols);
	if (*borrowed)
		return M1_OK;
	job.panel_bytes = m1b_panel_of(p->type, p->cols).bytes;
	if ((job.packed = allocate(c, (size_t) panels * job.panel_bytes)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %zu bytes of weights",
					   (size_t) panels * job.panel_bytes);
	m1_pool_run(c->pool, panels, pack_piece, &job);
	out->data = job.packed;
	return M1_OK;
}
