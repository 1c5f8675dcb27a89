/* nccl.cpp - see nccl.h. A rank whose stream comes to a call waits there; the last one does the work of all. */
#include "nccl.h"

#include <dlfcn.h>
#include <memory>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#include "emulated_memory.h"
#include "emulated_streams.h"

namespace
{

enum call_kind
{
	REDUCE,
	GATHER,
};

struct call
{
	call_kind kind;
	const float *send;
	float *receive;
	size_t count;
};

struct member
{
	call wants;
	bool waits;	   /* at this call */
	bool served;   /* it has been done, which the stream does not know yet */
	bool departed; /* destroyed or aborted */
};

struct clique
{
	std::vector<member> members;
};

ncclResult_t broken = ncclSuccess;
bool hidden; /* the library, from whoever loads it */

/*
 * In pieces, each summed in an order of its own, as a ring does: a value's bits depend on where it lies. In place, so
 * sums are made before anything is written.
 */
void
reduce(const std::vector<member> &all)
{
	const size_t count = all[0].wants.count;
	std::vector<float> sums(count);

	for (size_t i = 0; i < count; i++)
	{
		const size_t first = i * all.size() / count;
		float sum = 0.0f;

		for (size_t r = 0; r < all.size(); r++)
			sum += all[(first + r) % all.size()].wants.send[i];
		sums[i] = sum;
	}
	for (const member &m : all)
		memcpy(m.wants.receive, sums.data(), count * sizeof(float));
}

/* A rank may give what is in its place already. */
void
gather(const std::vector<member> &all)
{
	for (const member &to : all)
		for (size_t r = 0; r < all.size(); r++)
			memmove(to.wants.receive + r * to.wants.count, all[r].wants.send, to.wants.count * sizeof(float));
}

/* What a stream does at a call: true once the call is done. */
bool
meet(clique *c, size_t rank, const call &wants)
{
	member *me = &c->members[rank];

	if (me->served || me->departed)
	{
		me->served = false;
		return true;
	}
	me->wants = wants;
	me->waits = true;
	for (const member &m : c->members)
		if (!m.waits || broken != ncclSuccess)
			return false;
	for (const member &m : c->members)
		if (m.wants.kind != wants.kind || m.wants.count != wants.count)
		{
			fprintf(stderr, "emulated NCCL: ranks disagree about what they do\n");
			abort();
		}
	emulated_open_memory(EMULATED_EVERY_DEVICE);
	if (wants.kind == REDUCE)
		reduce(c->members);
	else
		gather(c->members);
	for (member &m : c->members)
	{
		m.waits = false;
		m.served = true;
	}
	me->served = false;
	return true;
}

} // namespace

struct ncclComm
{
	std::shared_ptr<clique> all;
	size_t rank;
	int device;
	std::shared_ptr<int> used; /* by what is on streams and in graphs */
};

static ncclResult_t
enqueue(ncclComm_t comm, cudaStream_t stream, const call &wants)
{
	const std::shared_ptr<clique> all = comm->all;
	const std::shared_ptr<int> used = comm->used;
	const size_t rank = comm->rank;

	if (emulated_device_of(stream) != comm->device)
		return ncclInvalidUsage;
	return emulated_enqueue_meeting(stream, [=] { return used && meet(all.get(), rank, wants); }) == cudaSuccess
			   ? ncclSuccess
			   : ncclUnhandledCudaError;
}

extern "C" {
void
emulated_break_nccl(ncclResult_t error)
{
	broken = error;
}

const char *
ncclGetErrorString(ncclResult_t result)
{
	return result == ncclRemoteError ? "remote process exited or there was a network error"
									 : "an error of the emulated NCCL";
}

ncclResult_t
ncclCommInitAll(ncclComm_t *comms, int n, const int *devices)
{
	auto all = std::make_shared<clique>();

	all->members.resize((size_t) n);
	for (int i = 0; i < n; i++)
		comms[i] = new ncclComm{all, (size_t) i, devices[i], std::make_shared<int>()};
	return ncclSuccess;
}

ncclResult_t
ncclCommAbort(ncclComm_t comm)
{
	emulated_locked([=] { comm->all->members[comm->rank].departed = true; });
	if (comm->used.use_count() > 1)
	{
		fprintf(stderr, "emulated NCCL: a communicator waits for the end of graphs that use it\n");
		abort();
	}
	delete comm;
	return ncclSuccess;
}

ncclResult_t
ncclCommDestroy(ncclComm_t comm)
{
	return ncclCommAbort(comm);
}

ncclResult_t
ncclCommGetAsyncError(ncclComm_t, ncclResult_t *error)
{
	*error = broken;
	return ncclSuccess;
}

ncclResult_t
ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t, ncclRedOp_t, ncclComm_t comm,
			  cudaStream_t stream)
{
	return enqueue(comm, stream, {REDUCE, (const float *) send, (float *) receive, count});
}

ncclResult_t
ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t, ncclComm_t comm, cudaStream_t stream)
{
	return enqueue(comm, stream, {GATHER, (const float *) send, (float *) receive, count});
}

/* ---- the library ---- */

void
emulated_hide_libraries(bool hide)
{
	hidden = hide;
}

void *
dlopen(const char *name, int)
{
	return hidden || strcmp(name, "libnccl.so.2") != 0 ? nullptr : &hidden;
}

void *
dlsym(void *, const char *name)
{
	static const struct
	{
		const char *name;
		void *call;
	} calls[] = {
		{"ncclGetErrorString", (void *) ncclGetErrorString},
		{"ncclCommInitAll", (void *) ncclCommInitAll},
		{"ncclCommDestroy", (void *) ncclCommDestroy},
		{"ncclCommAbort", (void *) ncclCommAbort},
		{"ncclCommGetAsyncError", (void *) ncclCommGetAsyncError},
		{"ncclAllReduce", (void *) ncclAllReduce},
		{"ncclAllGather", (void *) ncclAllGather},
	};

	for (const auto &call : calls)
		if (strcmp(call.name, name) == 0)
			return call.call;
	return nullptr;
}

char *
dlerror(void)
{
	static char text[] = "libnccl.so.2: cannot open shared object file: No such file or directory";

	return text;
}

} // extern "C"
