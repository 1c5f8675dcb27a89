/*
 * cuda_memory.c - device memory from one allocation, pinned memory of the host, and copies
 * on the backend's stream.
 */
#include "backend/cuda/cuda_internal.h"

#include <string.h>

/* ---- the arena ---- */

size_t
m1b_cuda_round(size_t bytes)
{
	return (bytes + M1B_CUDA_ALIGNMENT - 1) / M1B_CUDA_ALIGNMENT * M1B_CUDA_ALIGNMENT;
}

m1_status
m1b_cuda_arena_create(m1b_cuda_arena *arena, size_t bytes, m1_error *err)
{
	void *base;
	cudaError_t error = cudaMalloc(&base, bytes);

	if (error != cudaSuccess)
		return m1b_cuda_error(error, "allocating device memory", err);
	*arena = (m1b_cuda_arena){.base = base, .size = bytes};
	return M1_OK;
}

void *
m1b_cuda_take(m1b_cuda_arena *arena, size_t bytes)
{
	char *at = arena->base + arena->used;

	bytes = m1b_cuda_round(bytes);
	if (bytes > arena->size - arena->used)
		return NULL;
	arena->used += bytes;
	return at;
}

/* ---- buffers ---- */

void
m1b_cuda_want(m1b_cuda_buffers *all, void *to, size_t n, size_t size)
{
	all->list[all->n++] = (m1b_cuda_buffer){to, n * size};
}

size_t
m1b_cuda_buffers_bytes(const m1b_cuda_buffers *all)
{
	size_t bytes = 0;

	for (int i = 0; i < all->n; i++)
		bytes += m1b_cuda_round(all->list[i].bytes);
	return bytes;
}

m1_status
m1b_cuda_take_buffers(m1b_cuda_arena *arena, const m1b_cuda_buffers *all, m1_error *err)
{
	for (int i = 0; i < all->n; i++)
	{
		void *block = m1b_cuda_take(arena, all->list[i].bytes);

		if (block == NULL)
			return m1_fail(err, M1_E_INTERNAL, "the plan of device memory does not add up");
		memcpy(all->list[i].to, &block, sizeof block);
	}
	return M1_OK;
}

/* ---- memory of the host, events ---- */

m1_status
m1b_cuda_pinned(void *to, size_t bytes, m1_error *err)
{
	void *block = NULL;
	cudaError_t error = cudaHostAlloc(&block, bytes, cudaHostAllocDefault);

	memcpy(to, &block, sizeof block);
	return error == cudaSuccess ? M1_OK : m1b_cuda_error(error, "allocating pinned memory", err);
}

cudaError_t
m1b_cuda_event_create(cudaEvent_t *event)
{
	return cudaEventCreateWithFlags(event, cudaEventDisableTiming);
}

void
m1b_cuda_event_free(cudaEvent_t event)
{
	if (event != NULL)
		cudaEventDestroy(event);
}

/* ---- copies ---- */

static void
copy(m1b_cuda *c, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, const char *doing)
{
	if (bytes > 0)
		m1b_cuda_note(c, cudaMemcpyAsync(to, from, bytes, kind, c->stream), doing);
}

void
m1b_cuda_upload(m1b_cuda *c, void *to, const void *from, size_t bytes, const char *doing)
{
	copy(c, to, from, bytes, cudaMemcpyHostToDevice, doing);
}

void
m1b_cuda_copy(m1b_cuda *c, void *to, const void *from, size_t bytes, const char *doing)
{
	copy(c, to, from, bytes, cudaMemcpyDeviceToDevice, doing);
}

void
m1b_cuda_download(m1b_cuda *c, void *to, const void *from, size_t bytes, const char *doing)
{
	copy(c, to, from, bytes, cudaMemcpyDeviceToHost, doing);
}

void
m1b_cuda_zero(m1b_cuda *c, void *at, size_t bytes, const char *doing)
{
	if (bytes > 0)
		m1b_cuda_note(c, cudaMemsetAsync(at, 0, bytes, c->stream), doing);
}
