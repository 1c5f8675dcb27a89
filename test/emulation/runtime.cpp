/*
 * runtime.cpp - the runtime calls of cuda_runtime.h: devices, memory, streams, events and
 * graphs.
 *
 * One lock guards everything. A stream is a queue that is worked off at once, by whoever
 * puts something there, up to a meeting with other devices' streams. A wait that lasts
 * longer than a test may take is a deadlock, and ends the program.
 */
#include "emulated_streams.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <thread>
#include <vector>

#define PAGE ((size_t) 4096)
#define PATIENCE std::chrono::seconds(120)

namespace
{

struct item
{
	std::function<bool()> step; /* done? */
	bool meeting;
};

struct device
{
	size_t memory = (size_t) 4 << 30;
	size_t used = 0;
	bool lost = false;
};

/* Pages of their own, so that they can be closed, between two that are never open. */
struct block
{
	int device;
	size_t bytes;
	char *pages;
	size_t page_bytes;
};

std::mutex lock;
std::condition_variable changed;
device devices[EMULATED_DEVICES];
int device_count = 4;
std::vector<cudaStream_t> streams;
std::map<void *, block> blocks;
int open_device = -1; /* whose memory can be touched; -1 = all devices' */
cudaError_t next_error;
size_t calls;
thread_local int current_device;
thread_local cudaError_t last_error;

} // namespace

struct emulated_graph
{
	std::vector<item> work;
	int owners;
};

struct emulated_stream
{
	int device;
	std::deque<item> queue;
	emulated_graph *recording;
	cudaStreamCaptureMode mode;
	std::thread::id recorder;
};

struct emulated_event
{
	double at;
	int pending; /* times that it was recorded and not yet reached */
};

/* ---- memory that only its device can touch ---- */

static void
set_access(const block &b, bool allowed)
{
	mprotect(b.pages, b.page_bytes, allowed ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static void
use_device(int device)
{
	if (open_device == device)
		return;
	for (auto &entry : blocks)
	{
		const bool was_open = open_device < 0 || entry.second.device == open_device;
		const bool is_open = device < 0 || entry.second.device == device;

		if (was_open != is_open)
			set_access(entry.second, is_open);
	}
	open_device = device;
}

void
emulated_use_all_devices(void)
{
	use_device(-1);
}

/* ---- streams ---- */

/* Works off what can be, on all streams. */
static void
pump(void)
{
	bool progress = true;

	while (progress)
	{
		progress = false;
		for (cudaStream_t s : streams)
			while (!s->queue.empty())
			{
				if (!s->queue.front().meeting)
					use_device(s->device);
				if (!s->queue.front().step())
					break;
				s->queue.pop_front();
				progress = true;
			}
	}
	changed.notify_all();
}

static cudaError_t
submit(cudaStream_t s, std::function<bool()> step, bool meeting)
{
	std::unique_lock<std::mutex> guard(lock);

	if (s == nullptr || s->device != current_device)
		return cudaErrorInvalidResourceHandle;
	if (devices[s->device].lost)
		return cudaErrorIllegalAddress;
	if (s->recording != nullptr)
		s->recording->work.push_back({std::move(step), meeting});
	else
	{
		calls++;
		s->queue.push_back({std::move(step), meeting});
		pump();
	}
	return cudaSuccess;
}

static cudaError_t
submit_work(cudaStream_t s, const std::function<void()> &work)
{
	return submit(
		s,
		[work]
		{
			work();
			return true;
		},
		false);
}

cudaError_t
emulated_enqueue_meeting(cudaStream_t stream, std::function<bool()> meet)
{
	return submit(stream, std::move(meet), true);
}

void
emulated_enqueue(cudaStream_t stream, std::function<void()> work)
{
	cudaError_t error;

	{
		std::unique_lock<std::mutex> guard(lock);

		error = next_error;
		next_error = cudaSuccess;
	}
	if (error == cudaSuccess)
		error = submit_work(stream, work);
	if (error != cudaSuccess)
		last_error = error;
}

void
emulated_locked(const std::function<void()> &f)
{
	std::unique_lock<std::mutex> guard(lock);

	f();
	pump();
}

int
emulated_device_of(cudaStream_t stream)
{
	return stream->device;
}

bool
emulated_is_lost(int device)
{
	return devices[device].lost;
}

/* Until it is done; what is never done would hang the program on a device. */
static void
wait_until(std::unique_lock<std::mutex> &guard, const std::function<bool()> &done, const char *what)
{
	if (changed.wait_for(guard, PATIENCE, done))
		return;
	fprintf(stderr, "emulated device: %s waits for what never comes\n", what);
	abort();
}

static double
now_ms(void)
{
	return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

extern "C"
{
	/* ---- devices ---- */

	void emulated_set_memory(int device, size_t bytes)
	{
		devices[device].memory = bytes;
	}

	void emulated_set_devices(int count)
	{
		device_count = count;
		for (device &d : devices)
			d = device();
	}

	void emulated_fail_next_launch(cudaError_t error)
	{
		next_error = error;
	}

	void emulated_lose_device(int device)
	{
		emulated_locked([=] { devices[device].lost = true; });
	}

	size_t emulated_calls(void)
	{
		std::unique_lock<std::mutex> guard(lock);

		return calls;
	}

	cudaError_t cudaGetDeviceCount(int *count)
	{
		*count = device_count;
		return device_count > 0 ? cudaSuccess : cudaErrorNoDevice;
	}

	cudaError_t cudaSetDevice(int device)
	{
		if (device < 0 || device >= device_count)
			return cudaErrorInvalidDevice;
		current_device = device;
		return cudaSuccess;
	}

	cudaError_t cudaGetDevice(int *device)
	{
		*device = current_device;
		return cudaSuccess;
	}

	cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device)
	{
		memset(prop, 0, sizeof *prop);
		snprintf(prop->name, sizeof prop->name, "emulated on the CPU");
		prop->totalGlobalMem = devices[device].memory;
		prop->sharedMemPerBlockOptin = 227 * 1024;
		prop->major = 9;
		prop->multiProcessorCount = 4;
		return cudaSuccess;
	}

	cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
	{
		const device &d = devices[current_device];

		*total = d.memory;
		*free = d.memory - d.used;
		return cudaSuccess;
	}

	const char *cudaGetErrorName(cudaError_t error)
	{
		switch (error)
		{
			case cudaSuccess:
				return "cudaSuccess";
			case cudaErrorMemoryAllocation:
				return "cudaErrorMemoryAllocation";
			case cudaErrorNoDevice:
				return "cudaErrorNoDevice";
			case cudaErrorInvalidResourceHandle:
				return "cudaErrorInvalidResourceHandle";
			case cudaErrorIllegalAddress:
				return "cudaErrorIllegalAddress";
			default:
				return "cudaError";
		}
	}

	const char *cudaGetErrorString(cudaError_t error)
	{
		return error == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "an error of the emulated device";
	}

	cudaError_t cudaGetLastError(void)
	{
		const cudaError_t error = last_error;

		last_error = cudaSuccess;
		return error;
	}

	/* ---- memory ---- */

	cudaError_t cudaMalloc(void **p, size_t bytes)
	{
		std::unique_lock<std::mutex> guard(lock);
		device *d = &devices[current_device];
		const size_t rounded = (bytes + 255) / 256 * 256;
		const size_t inside = (rounded + PAGE - 1) / PAGE * PAGE;
		char *mapped;
		char *data;

		if (bytes > d->memory - d->used || d->lost)
			return cudaErrorMemoryAllocation;
		mapped =
			(char *) mmap(nullptr, inside + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (mapped == MAP_FAILED)
			return cudaErrorMemoryAllocation;
		madvise(mapped, inside + 2 * PAGE, MADV_HUGEPAGE); /* fewer pages to open and close */
		use_device(current_device);
		/* up against the closed page, which shows what goes beyond the end */
		data = mapped + PAGE + inside - rounded;
		blocks[data] = {current_device, bytes, mapped + PAGE, inside};
		set_access(blocks[data], true);
		memset(data, 0xff, bytes); /* NaN until it is written */
		d->used += bytes;
		*p = data;
		return cudaSuccess;
	}

	cudaError_t cudaFree(void *p)
	{
		std::unique_lock<std::mutex> guard(lock);
		auto entry = blocks.find(p);

		if (p == nullptr)
			return cudaSuccess;
		if (entry == blocks.end())
			return cudaErrorInvalidValue;
		devices[entry->second.device].used -= entry->second.bytes;
		munmap(entry->second.pages - PAGE, entry->second.page_bytes + 2 * PAGE);
		blocks.erase(entry);
		return cudaSuccess;
	}

	cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
	{
		*p = aligned_alloc(256, (bytes + 255) / 256 * 256);
		return *p != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
	}

	cudaError_t cudaFreeHost(void *p)
	{
		free(p);
		return cudaSuccess;
	}

	cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t stream)
	{
		return submit_work(stream, [=] { memcpy(to, from, bytes); });
	}

	cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
	{
		return submit_work(stream, [=] { memset(to, value, bytes); });
	}

	/* ---- streams and events ---- */

	cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
	{
		std::unique_lock<std::mutex> guard(lock);

		*stream = new emulated_stream();
		(*stream)->device = current_device;
		streams.push_back(*stream);
		return cudaSuccess;
	}

	cudaError_t cudaStreamDestroy(cudaStream_t stream)
	{
		std::unique_lock<std::mutex> guard(lock);

		for (size_t i = 0; i < streams.size(); i++)
			if (streams[i] == stream)
				streams.erase(streams.begin() + (ptrdiff_t) i);
		delete stream->recording;
		delete stream;
		return cudaSuccess;
	}

	static cudaError_t state_of(cudaStream_t s)
	{
		return s->recording != nullptr	 ? cudaErrorStreamCaptureUnsupported
			   : devices[s->device].lost ? cudaErrorIllegalAddress
			   : s->queue.empty()		 ? cudaSuccess
										 : cudaErrorNotReady;
	}

	cudaError_t cudaStreamQuery(cudaStream_t s)
	{
		std::unique_lock<std::mutex> guard(lock);

		return state_of(s);
	}

	cudaError_t cudaStreamSynchronize(cudaStream_t s)
	{
		std::unique_lock<std::mutex> guard(lock);

		wait_until(
			guard, [=] { return state_of(s) != cudaErrorNotReady; }, "a stream");
		return state_of(s) == cudaSuccess ? cudaGetLastError() : state_of(s);
	}

	cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
	{
		*event = new emulated_event();
		return cudaSuccess;
	}

	cudaError_t cudaEventDestroy(cudaEvent_t event)
	{
		delete event;
		return cudaSuccess;
	}

	/* The event is reached once no record of it is pending. */
	cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
	{
		return submit(
			stream, [event] { return event->pending == 0; }, false);
	}

	cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
	{
		cudaError_t error;

		emulated_locked([=] { event->pending++; });
		error = submit_work(stream,
							[=]
							{
								event->at = now_ms();
								event->pending--;
							});
		if (error != cudaSuccess)
			emulated_locked([=] { event->pending--; });
		return error;
	}

	cudaError_t cudaEventSynchronize(cudaEvent_t event)
	{
		std::unique_lock<std::mutex> guard(lock);

		wait_until(
			guard, [=] { return event->pending == 0; }, "an event");
		return cudaSuccess;
	}

	cudaError_t cudaEventQuery(cudaEvent_t event)
	{
		std::unique_lock<std::mutex> guard(lock);

		return event->pending == 0 ? cudaSuccess : cudaErrorNotReady;
	}

	cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
	{
		*ms = (float) (end->at - start->at);
		return cudaSuccess;
	}

	/* ---- graphs ---- */

	cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode)
	{
		std::unique_lock<std::mutex> guard(lock);

		if (s->recording != nullptr)
			return cudaErrorInvalidValue;
		s->recording = new emulated_graph();
		s->recording->owners = 1;
		s->mode = mode;
		s->recorder = std::this_thread::get_id();
		return cudaSuccess;
	}

	cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
	{
		std::unique_lock<std::mutex> guard(lock);

		if (s->recording == nullptr)
			return cudaErrorInvalidValue;
		if (s->mode != cudaStreamCaptureModeRelaxed && s->recorder != std::this_thread::get_id())
			return cudaErrorStreamCaptureWrongThread;
		*graph = s->recording;
		s->recording = nullptr;
		return cudaSuccess;
	}

	cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
	{
		graph->owners++;
		*exec = graph;
		return cudaSuccess;
	}

	cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
	{
		std::unique_lock<std::mutex> guard(lock);

		if (s->device != current_device)
			return cudaErrorInvalidResourceHandle;
		if (devices[s->device].lost)
			return cudaErrorIllegalAddress;
		calls++;
		s->queue.insert(s->queue.end(), exec->work.begin(), exec->work.end());
		pump();
		return cudaSuccess;
	}

	cudaError_t cudaGraphDestroy(cudaGraph_t graph)
	{
		if (--graph->owners == 0)
			delete graph;
		return cudaSuccess;
	}

	cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
	{
		return cudaGraphDestroy(exec);
	}

} // extern "C"
