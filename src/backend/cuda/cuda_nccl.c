/*
 * cuda_nccl.c - sums over several GPUs, and rows of which each has a part, by NCCL.
 *
 * Every rank's calls are made by a thread that has no other rank at the same time: NCCL
 * says that one thread with several GPUs may hang where steps are recorded, because
 * launching one GPU's graph may wait for another's.
 *
 * A router must choose the same experts everywhere, so the sums must be the same bits on
 * all ranks. NCCL's all-reduce adds each value up in one place. For few rows the parts
 * are gathered and added by every rank alike, in the order of the ranks: there, a row's
 * bits do not depend on where it lies in the batch either, as backend.h promises.
 *
 * The library is loaded for several GPUs only: a machine with one may not have it.
 */
#define _POSIX_C_SOURCE 200809L /* sched_yield */
#include "backend/cuda/cuda_internal.h"

#include <dlfcn.h>
#include <nccl.h>
#include <sched.h>
#include <string.h>

#include "base/clock.h"

#define PATIENCE_MS 120e3 /* no step takes so long */
#define LIBRARY "libnccl.so.2"

/* Its calls, once it is loaded, which a process does once. */
static struct
{
	__typeof__(ncclGetErrorString) *error_string;
	__typeof__(ncclCommInitAll) *init_all;
	__typeof__(ncclCommDestroy) *destroy;
	__typeof__(ncclCommAbort) *abort;
	__typeof__(ncclCommGetAsyncError) *async_error;
	__typeof__(ncclAllReduce) *all_reduce;
	__typeof__(ncclAllGather) *all_gather;
} nccl;

static m1_status
load(int gpus, m1_error *err)
{
	const struct
	{
		const char *name;
		void *call; /* where its address goes */
	} calls[] = {{"ncclGetErrorString", &nccl.error_string},   {"ncclCommInitAll", &nccl.init_all},
				 {"ncclCommDestroy", &nccl.destroy},		   {"ncclCommAbort", &nccl.abort},
				 {"ncclCommGetAsyncError", &nccl.async_error}, {"ncclAllReduce", &nccl.all_reduce},
				 {"ncclAllGather", &nccl.all_gather}};
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	bool whole = library != NULL;

	for (size_t i = 0; whole && i < sizeof calls / sizeof *calls; i++)
	{
		void *found = dlsym(library, calls[i].name);

		memcpy(calls[i].call, &found, sizeof found);
		whole = found != NULL;
	}
	if (whole)
		return M1_OK;
	m1_fail(err, M1_E_DEVICE, "NCCL could not be loaded, which adds up over %d GPUs", gpus);
	m1_error_detail(err, "%s.", dlerror());
	m1_error_hint(err, LIBRARY " is to be where the loader looks, in a folder of LD_LIBRARY_PATH, for instance.");
	return M1_E_DEVICE;
}

void
m1b_cuda_peers_want(m1b_cuda *c, m1b_cuda_buffers *all)
{
	const size_t ranks = (size_t) c->ranks;
	m1b_cuda_peers *p = &c->peers;

	if (c->ranks == 1)
		return;
	m1b_cuda_want(all, &p->squares, (size_t) c->g.max_tokens, sizeof *p->squares);
	m1b_cuda_want(all, &p->parts, ranks * M1K_FEW_ROWS * (size_t) c->g.hidden, sizeof *p->parts);
	m1b_cuda_want(all, &p->slices, (size_t) c->g.max_states * (size_t) c->g.vocab, sizeof *p->slices);
}

static void
note(m1b_cuda *c, ncclResult_t result, const char *doing)
{
	if (result != ncclSuccess && result != ncclInProgress)
		m1b_cuda_note_library(c, "NCCL", cudaErrorUnknown, doing, "%s", nccl.error_string(result));
}

m1_status
m1b_cuda_comms_create(m1b_cuda *const *ranks, int n, m1_error *err)
{
	ncclComm_t comms[M1B_CUDA_MAX_GPUS];
	int devices[M1B_CUDA_MAX_GPUS] = {0};
	ncclResult_t result;

	if (load(n, err) != M1_OK)
		return M1_E_DEVICE;
	for (int r = 0; r < n; r++)
		devices[r] = ranks[r]->device;
	if ((result = nccl.init_all(comms, n, devices)) != ncclSuccess)
	{
		m1_fail(err, M1_E_DEVICE, "NCCL could not connect %d GPUs", n);
		m1_error_detail(err, "%s.", nccl.error_string(result));
		m1_error_hint(err, "NCCL_DEBUG=INFO in the server's environment makes it tell more.");
		return M1_E_DEVICE;
	}
	for (int r = 0; r < n; r++)
		ranks[r]->peers.comm = comms[r];
	return M1_OK;
}

void
m1b_cuda_comm_free(m1b_cuda *c, bool abort)
{
	if (c->peers.comm == NULL)
		return;
	if (abort)
		nccl.abort(c->peers.comm);
	else
		nccl.destroy(c->peers.comm);
	c->peers.comm = NULL;
}

/* A failure of the communicator that is known by now. */
static void
check_comm(m1b_cuda *c)
{
	ncclResult_t result = ncclSuccess;

	if (c->peers.comm == NULL)
		return;
	note(c, nccl.async_error(c->peers.comm, &result), "asking for the GPUs' state");
	note(c, result, "adding up over GPUs");
}

bool
m1b_cuda_keep_waiting(m1b_cuda *c, cudaError_t state, double begin)
{
	if (state != cudaErrorNotReady)
	{
		m1b_cuda_note(c, state, "running a step");
		return false;
	}
	cudaGetLastError(); /* that it is not ready is no failure of what is launched next */
	check_comm(c);
	if (m1_now_ms() - begin > PATIENCE_MS)
		m1b_cuda_note(c, cudaErrorLaunchTimeout, "waiting for the GPUs");
	if (m1b_cuda_failed(c))
		return false;
	sched_yield();
	return true;
}

void
m1b_cuda_sum(m1b_cuda *c, float *x, int n, int width)
{
	const size_t count = (size_t) n * (size_t) width;

	if (c->peers.comm == NULL)
		return;
	if (n <= M1K_FEW_ROWS)
	{
		note(c, nccl.all_gather(x, c->peers.parts, count, ncclFloat32, c->peers.comm, c->stream),
			 "gathering from GPUs");
		m1k_add_parts(c->peers.parts, c->ranks, count, x, c->stream);
	}
	else
		note(c, nccl.all_reduce(x, x, count, ncclFloat32, ncclSum, c->peers.comm, c->stream), "adding up over GPUs");
	m1b_cuda_wrote(c, x);
	m1b_cuda_launched(c, "adding up over GPUs");
}

float *
m1b_cuda_own_slice(const m1b_cuda *c, int n, int width)
{
	return c->peers.slices + (size_t) c->rank * (size_t) n * (size_t) width;
}

void
m1b_cuda_join(m1b_cuda *c, int n, int width, float *out)
{
	const float *own = m1b_cuda_own_slice(c, n, width);

	if (c->peers.comm == NULL)
		return;
	note(c, nccl.all_gather(own, c->peers.slices, (size_t) n * (size_t) width, ncclFloat32, c->peers.comm, c->stream),
		 "gathering from GPUs");
	m1k_join_parts(c->peers.slices, c->ranks, n, width, out, c->stream);
	m1b_cuda_wrote(c, out);
	m1b_cuda_launched(c, "gathering from GPUs");
}
