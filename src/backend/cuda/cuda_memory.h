/*
 * cuda_memory.h - device memory, pinned memory, and copies.
 *
 * What is allocated is planned first: each file says what buffers it wants, which are
 * added up for the plan and taken from the arena afterwards.
 */
#ifndef M1_BACKEND_CUDA_CUDA_MEMORY_H
#define M1_BACKEND_CUDA_CUDA_MEMORY_H

#include <cuda_runtime.h>
#include <stddef.h>

#include "base/status.h"

typedef struct m1b_cuda m1b_cuda;

#define M1B_CUDA_ALIGNMENT 256
#define M1B_CUDA_MAX_BUFFERS 48

/* How device memory is divided; made before anything is allocated. Bytes. */
typedef struct m1b_cuda_plan
{
	size_t available; /* free on the device, less a reserve for CUDA itself */
	size_t weights;
	size_t activations; /* what the model asks for by m1b_ops.scratch */
	size_t work;		/* the backend's own buffers */
	size_t states;
	size_t pages;
	size_t state_bytes; /* one sequence's lightning states */
	size_t slot_bytes;	/* K and V of one page and layer */
	size_t page_bytes;
	int snapshots;		/* places for M1B_SHARED snapshots' lightning states */
	int own_places;		/* and for M1B_OWN ones' */
	int sequence_pages; /* of n_pages, what sequences may use; the rest is for snapshots */
	int n_pages;
} m1b_cuda_plan;

/* Memory handed out from one end, never given back before close. */
typedef struct m1b_cuda_arena
{
	char *base;
	size_t size;
	size_t used;
} m1b_cuda_arena;

typedef struct m1b_cuda_buffer
{
	void *to; /* the pointer to set, of whatever type */
	size_t bytes;
} m1b_cuda_buffer;

typedef struct m1b_cuda_buffers
{
	m1b_cuda_buffer list[M1B_CUDA_MAX_BUFFERS];
	int n;
} m1b_cuda_buffers;

size_t m1b_cuda_round(size_t bytes);
m1_status m1b_cuda_arena_create(m1b_cuda_arena *arena, size_t bytes, m1_error *err);
void *m1b_cuda_take(m1b_cuda_arena *arena, size_t bytes); /* NULL when it is used up */

/* One more buffer: n values of `size` bytes, which the pointer at `to` is to point to. */
void m1b_cuda_want(m1b_cuda_buffers *all, void *to, size_t n, size_t size);
/* What they take of an arena. */
size_t m1b_cuda_buffers_bytes(const m1b_cuda_buffers *all);
/* Takes them all, and sets their pointers. */
m1_status m1b_cuda_take_buffers(m1b_cuda_arena *arena, const m1b_cuda_buffers *all, m1_error *err);

/* Pinned memory of the host; sets the pointer at `to`, of whatever type. */
m1_status m1b_cuda_pinned(void *to, size_t bytes, m1_error *err);
/* An event that is waited for, not timed; m1b_cuda_event_free takes NULL, too. */
cudaError_t m1b_cuda_event_create(cudaEvent_t *event);
void m1b_cuda_event_free(cudaEvent_t event);

/* On the stream; nothing where there are no bytes. From the host, within the device, to the host. */
void m1b_cuda_upload(m1b_cuda *c, void *to, const void *from, size_t bytes, const char *doing);
void m1b_cuda_copy(m1b_cuda *c, void *to, const void *from, size_t bytes, const char *doing);
void m1b_cuda_download(m1b_cuda *c, void *to, const void *from, size_t bytes, const char *doing);
void m1b_cuda_zero(m1b_cuda *c, void *at, size_t bytes, const char *doing);

#endif
