/*
 * runtime.cpp - the runtime calls of cuda_runtime.h: devices, copies, streams, events and
 * graphs. Whose memory is whose is memory.cpp's.
 *
 * One lock guards everything. A stream is a queue that is worked off as late as a device
 * may: when somebody waits for it, or asks how far it is. What is read from pinned memory
 * is what is there then, and two streams that no event puts in order run in the wrong one.
 * A wait that lasts longer than a test may take is a deadlock, and ends the program.
 */
#include "emulated_memory.h"
#include "emulated_streams.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <thread>
#include <vector>

#define PATIENCE std::chrono::seconds(120)

namespace
{

struct mark
{
	double at;
	size_t records, reached;	 /* how often it was recorded, and how often a stream has come there */
	cudaStream_t stream;		 /* where it was recorded last */
	const emulated_graph *graph; /* what was being recorded there, or none */
};

struct item
{
	std::function<bool()> step; /* done? */
	bool meeting;
	std::shared_ptr<mark> event; /* that is waited for, or none */
	void *to;					 /* pinned memory that it will write, or none */
	size_t bytes;
};

size_t
memory_of_device()
{
	const char *gib = getenv("EMULATED_GIB");

	return (gib != nullptr ? (size_t) atoi(gib) : 4) << 30;
}

struct device
{
	size_t memory = memory_of_device();
	size_t used = 0;
	bool lost = false;
};

std::mutex lock;
std::condition_variable changed;
device devices[EMULATED_DEVICES];
int device_count = 4;
std::vector<cudaStream_t> streams;
int waiting; /* threads that wait */
cudaError_t next_error;
int to_spoil; /* recordings */
size_t calls;
thread_local int current_device;
thread_local cudaError_t last_error;

} // namespace

struct emulated_graph
{
	std::vector<item> work;
	int owners;
	bool spoilt; /* something came that cannot be recorded */
};

struct emulated_stream
{
	int device;
	std::deque<item> queue;
	bool wanted; /* somebody waits for what is in the queue */
	emulated_graph *recording;
	cudaStreamCaptureMode mode;
	std::thread::id recorder;
};

/* What waits for an event outlives it. */
struct emulated_event
{
	std::shared_ptr<mark> state;
};

/* ---- streams ---- */

static void
want(cudaStream_t wanted)
{
	for (cudaStream_t s : streams)
		if (s == wanted || wanted == nullptr)
			s->wanted = !s->queue.empty();
}

/* Works off what can be of a stream; false: nothing. */
static bool
advance(cudaStream_t s)
{
	bool progress = false;

	while (s->wanted)
	{
		const item &next = s->queue.front();

		if (!next.meeting)
			emulated_open_memory(s->device);
		if (!next.step())
		{
			if (next.meeting)
				want(nullptr);
			else
				want(next.event->stream);
			break;
		}
		s->queue.pop_front();
		s->wanted = !s->queue.empty();
		progress = true;
	}
	return progress;
}

/* Works off what can be of the streams that are wanted, and of those that they wait for. */
static void
pump(void)
{
	bool progress = true;
	size_t wanted = 0;

	while (progress)
	{
		const size_t before = wanted;

		progress = false;
		wanted = 0;
		for (cudaStream_t s : streams)
		{
			progress = advance(s) || progress;
			wanted += s->wanted;
		}
		progress = progress || wanted > before;
	}
	emulated_close_memory();
	changed.notify_all();
}

/* Until it is done, nobody may use what is in the memory that it writes. */
static void
put(cudaStream_t s, const item &work)
{
	if (work.to != nullptr)
		memset(work.to, 0xff, work.bytes);
	s->queue.push_back(work);
}

/* Something has been put on the stream: those who wait may need it. */
static void
proceed(cudaStream_t s)
{
	if (waiting > 0)
		want(s);
	pump();
}

static cudaError_t
submit(cudaStream_t s, const item &work)
{
	std::unique_lock<std::mutex> guard(lock);

	if (s == nullptr || s->device != current_device)
		return cudaErrorInvalidResourceHandle;
	if (devices[s->device].lost)
		return cudaErrorIllegalAddress;
	if (s->recording != nullptr)
		s->recording->work.push_back(work);
	else
	{
		calls++;
		put(s, work);
		proceed(s);
	}
	return cudaSuccess;
}

/* Whether the stream records what is put on it: then the recording is spoilt by what asks. */
static bool
spoils_recording(cudaStream_t s)
{
	std::unique_lock<std::mutex> guard(lock);

	if (s->recording == nullptr)
		return false;
	s->recording->spoilt = true;
	return true;
}

/* to: pinned memory that it writes, or nullptr. */
static cudaError_t
submit_work(cudaStream_t s, const std::function<void()> &work, void *to = nullptr, size_t bytes = 0)
{
	return submit(s, {[work]
					  {
						  work();
						  return true;
					  },
					  false, nullptr, to, bytes});
}

cudaError_t
emulated_enqueue_meeting(cudaStream_t stream, std::function<bool()> meet)
{
	return submit(stream, {std::move(meet), true, nullptr, nullptr, 0});
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
	want(nullptr);
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
	bool came;

	waiting++;
	pump();
	came = changed.wait_for(guard, PATIENCE, done);
	waiting--;
	if (came)
		return;
	fprintf(stderr, "emulated device: %s waits for what never comes\n", what);
	abort();
}

static double
now_ms(void)
{
	return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/* ---- kernels ---- */

#define SHARED_UNASKED ((size_t) 48 << 10)
#define SHARED_STATIC ((size_t) 128) /* of a kernel that has both kinds, at most: a sum's warps */
#define SHARED_AT_MOST ((size_t) 227 << 10)

/* Of each kernel and device. */
static std::map<std::pair<const void *, int>, size_t> allowed_shared;

bool emulated_exponentials_up;

extern "C" {
void
emulated_round_exponentials_up(bool up)
{
	emulated_exponentials_up = up;
}

cudaError_t
emulated_allow_shared(const void *kernel, size_t bytes)
{
	std::unique_lock<std::mutex> guard(lock);

	if (bytes > SHARED_AT_MOST)
		return cudaErrorInvalidValue;
	allowed_shared[{kernel, current_device}] = bytes;
	return cudaSuccess;
}

bool
emulated_shared_is_allowed(const void *kernel, size_t bytes)
{
	std::unique_lock<std::mutex> guard(lock);
	const auto entry = allowed_shared.find({kernel, current_device});

	return bytes <= SHARED_UNASKED - SHARED_STATIC || (entry != allowed_shared.end() && bytes <= entry->second);
}

bool
emulated_points_to_host(const void *argument, size_t bytes)
{
	std::unique_lock<std::mutex> guard(lock);

	return emulated_has_host_pointer(argument, bytes);
}

/* ---- devices ---- */

void
emulated_set_memory(int device, size_t bytes)
{
	devices[device].memory = bytes;
}

void
emulated_set_devices(int count)
{
	device_count = count;
	for (device &d : devices)
		d = device();
}

void
emulated_fail_next_launch(cudaError_t error)
{
	next_error = error;
}

int
emulated_spoil_recordings(int count)
{
	std::unique_lock<std::mutex> guard(lock);
	const int before = to_spoil;

	to_spoil = count;
	return before;
}

void
emulated_lose_device(int device)
{
	emulated_locked([=] { devices[device].lost = true; });
}

size_t
emulated_calls(void)
{
	std::unique_lock<std::mutex> guard(lock);

	return calls;
}

size_t
emulated_pinned(void)
{
	std::unique_lock<std::mutex> guard(lock);

	return emulated_pinned_bytes();
}

cudaError_t
cudaGetDeviceCount(int *count)
{
	*count = device_count;
	return device_count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t
cudaSetDevice(int device)
{
	if (device < 0 || device >= device_count)
		return cudaErrorInvalidDevice;
	current_device = device;
	return cudaSuccess;
}

cudaError_t
cudaGetDevice(int *device)
{
	*device = current_device;
	return cudaSuccess;
}

cudaError_t
cudaGetDeviceProperties(cudaDeviceProp *prop, int device)
{
	memset(prop, 0, sizeof *prop);
	snprintf(prop->name, sizeof prop->name, "emulated on the CPU");
	prop->totalGlobalMem = devices[device].memory;
	prop->sharedMemPerBlockOptin = 227 * 1024;
	prop->major = 9;
	prop->multiProcessorCount = 4;
	return cudaSuccess;
}

cudaError_t
cudaMemGetInfo(size_t *free, size_t *total)
{
	const device &d = devices[current_device];

	*total = d.memory;
	*free = d.memory - d.used;
	return cudaSuccess;
}

const char *
cudaGetErrorName(cudaError_t error)
{
	switch (error)
	{
		case cudaSuccess:
			return "cudaSuccess";
		case cudaErrorInvalidValue:
			return "cudaErrorInvalidValue";
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

const char *
cudaGetErrorString(cudaError_t error)
{
	return error == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "an error of the emulated device";
}

cudaError_t
cudaGetLastError(void)
{
	const cudaError_t error = last_error;

	last_error = cudaSuccess;
	return error;
}

/* ---- memory ---- */

cudaError_t
cudaMalloc(void **p, size_t bytes)
{
	std::unique_lock<std::mutex> guard(lock);
	device *d = &devices[current_device];

	*p = bytes > d->memory - d->used || d->lost ? nullptr : emulated_map_block(current_device, bytes);
	if (*p == nullptr)
		return cudaErrorMemoryAllocation;
	d->used += bytes;
	return cudaSuccess;
}

cudaError_t
cudaFree(void *p)
{
	std::unique_lock<std::mutex> guard(lock);
	int device;
	size_t bytes;

	if (p == nullptr)
		return cudaSuccess;
	want(nullptr); /* the device finishes what it has */
	pump();
	if (!emulated_unmap_block(p, &device, &bytes))
		return cudaErrorInvalidValue;
	devices[device].used -= bytes;
	return cudaSuccess;
}

cudaError_t
cudaHostAlloc(void **p, size_t bytes, unsigned)
{
	std::unique_lock<std::mutex> guard(lock);

	*p = aligned_alloc(256, (bytes + 255) / 256 * 256);
	if (*p == nullptr)
		return cudaErrorMemoryAllocation;
	emulated_pin(*p, bytes);
	return cudaSuccess;
}

cudaError_t
cudaFreeHost(void *p)
{
	std::unique_lock<std::mutex> guard(lock);

	want(nullptr);
	pump();
	emulated_unpin(p);
	free(p);
	return cudaSuccess;
}

static bool
is_pinned(const void *p, size_t bytes)
{
	std::unique_lock<std::mutex> guard(lock);

	return emulated_is_pinned(p, bytes);
}

/* Whether memory is where a copy is said to begin or end. */
static bool
is_there(const void *p, size_t bytes, bool on_device)
{
	std::unique_lock<std::mutex> guard(lock);

	return on_device ? emulated_is_device(p, bytes) : !emulated_has_device(p, bytes);
}

/* Other memory of the host than pinned is read before the call returns, and is written by then. */
cudaError_t
cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
	const void *host = kind == cudaMemcpyHostToDevice ? from : kind == cudaMemcpyDeviceToHost ? to : nullptr;
	const bool pageable = host != nullptr && !is_pinned(host, bytes);

	if (bytes == 0)
		return cudaSuccess;
	if (!is_there(to, bytes, kind != cudaMemcpyDeviceToHost) || !is_there(from, bytes, kind != cudaMemcpyHostToDevice))
		return cudaErrorInvalidValue;
	if (pageable && spoils_recording(stream))
		return cudaErrorStreamCaptureUnsupported;
	if (pageable && kind == cudaMemcpyHostToDevice)
	{
		const char *first = static_cast<const char *>(from);
		const std::vector<char> kept(first, first + bytes);

		return submit_work(stream, [=] { memcpy(to, kept.data(), bytes); });
	}
	const cudaError_t error = submit_work(
		stream, [=] { memcpy(to, from, bytes); }, kind == cudaMemcpyDeviceToHost ? to : nullptr, bytes);

	return error == cudaSuccess && pageable ? cudaStreamSynchronize(stream) : error;
}

/* Pages that are given back are zeros when they are touched. */
static void
set(char *to, int value, size_t bytes)
{
	const size_t before = (EMULATED_PAGE - reinterpret_cast<uintptr_t>(to) % EMULATED_PAGE) % EMULATED_PAGE;
	const size_t pages =
		bytes > EMULATED_LARGEST_TOUCHED && value == 0 ? (bytes - before) / EMULATED_PAGE * EMULATED_PAGE : 0;

	if (pages == 0)
	{
		memset(to, value, bytes);
		return;
	}
	memset(to, 0, before);
	madvise(to + before, pages, MADV_DONTNEED);
	memset(to + before + pages, 0, bytes - before - pages);
}

cudaError_t
cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
	if (bytes > 0 && !is_there(to, bytes, true))
		return cudaErrorInvalidValue;
	return submit_work(stream, [=] { set(static_cast<char *>(to), value, bytes); });
}

/* ---- streams and events ---- */

cudaError_t
cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
	std::unique_lock<std::mutex> guard(lock);

	*stream = new emulated_stream();
	(*stream)->device = current_device;
	streams.push_back(*stream);
	return cudaSuccess;
}

cudaError_t
cudaStreamDestroy(cudaStream_t stream)
{
	std::unique_lock<std::mutex> guard(lock);

	want(stream);
	pump();
	for (size_t i = 0; i < streams.size(); i++)
		if (streams[i] == stream)
			streams.erase(streams.begin() + (ptrdiff_t) i);
	delete stream->recording;
	delete stream;
	return cudaSuccess;
}

static cudaError_t
state_of(cudaStream_t s)
{
	return s->recording != nullptr	 ? cudaErrorStreamCaptureUnsupported
		   : devices[s->device].lost ? cudaErrorIllegalAddress
		   : s->queue.empty()		 ? cudaSuccess
									 : cudaErrorNotReady;
}

cudaError_t
cudaStreamQuery(cudaStream_t s)
{
	std::unique_lock<std::mutex> guard(lock);

	want(s);
	pump();
	return state_of(s);
}

cudaError_t
cudaStreamSynchronize(cudaStream_t s)
{
	std::unique_lock<std::mutex> guard(lock);

	want(s);
	wait_until(
		guard, [=] { return state_of(s) != cudaErrorNotReady; }, "a stream");
	return state_of(s) == cudaSuccess ? cudaGetLastError() : state_of(s);
}

cudaError_t
cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
	*event = new emulated_event{std::make_shared<mark>()};
	return cudaSuccess;
}

cudaError_t
cudaEventDestroy(cudaEvent_t event)
{
	delete event;
	return cudaSuccess;
}

/* What is recorded later does not count. */
cudaError_t
cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
	const std::shared_ptr<mark> state = event->state;
	const size_t records = state->records;

	if (state->graph != stream->recording)
		return spoils_recording(stream) ? cudaErrorStreamCaptureIsolation : cudaErrorCapturedEvent;
	return submit(stream, {[=] { return state->reached >= records; }, false, state, nullptr, 0});
}

cudaError_t
cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	const std::shared_ptr<mark> state = event->state;
	const cudaError_t error = submit_work(stream,
										  [=]
										  {
											  state->at = now_ms();
											  state->reached++;
										  });
	std::unique_lock<std::mutex> guard(lock);

	if (error == cudaSuccess)
	{
		state->records++;
		state->stream = stream;
		state->graph = stream->recording;
	}
	return error;
}

static bool
is_reached(cudaEvent_t event)
{
	return event->state->reached >= event->state->records;
}

/* Recorded by a graph: it is for what is in the graph. */
static bool
is_captured(cudaEvent_t event)
{
	return event->state->graph != nullptr;
}

cudaError_t
cudaEventSynchronize(cudaEvent_t event)
{
	std::unique_lock<std::mutex> guard(lock);

	if (is_captured(event))
		return cudaErrorCapturedEvent;
	if (!is_reached(event))
		want(event->state->stream);
	wait_until(
		guard, [=] { return is_reached(event); }, "an event");
	return cudaSuccess;
}

cudaError_t
cudaEventQuery(cudaEvent_t event)
{
	std::unique_lock<std::mutex> guard(lock);

	if (is_captured(event))
		return cudaErrorCapturedEvent;
	if (!is_reached(event))
		want(event->state->stream);
	pump();
	return is_reached(event) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t
cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
	*ms = (float) (end->state->at - start->state->at);
	return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t
cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode)
{
	std::unique_lock<std::mutex> guard(lock);

	if (s->recording != nullptr)
		return cudaErrorInvalidValue;
	s->recording = new emulated_graph();
	s->recording->owners = 1;
	s->recording->spoilt = to_spoil > 0;
	to_spoil -= s->recording->spoilt;
	s->mode = mode;
	s->recorder = std::this_thread::get_id();
	return cudaSuccess;
}

cudaError_t
cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
	std::unique_lock<std::mutex> guard(lock);

	if (s->recording == nullptr)
		return cudaErrorInvalidValue;
	if (s->mode != cudaStreamCaptureModeRelaxed && s->recorder != std::this_thread::get_id())
		return cudaErrorStreamCaptureWrongThread;
	*graph = s->recording;
	s->recording = nullptr;
	if (!(*graph)->spoilt)
		return cudaSuccess;
	delete *graph;
	*graph = nullptr;
	return cudaErrorStreamCaptureInvalidated;
}

cudaError_t
cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
	graph->owners++;
	*exec = graph;
	return cudaSuccess;
}

cudaError_t
cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
	std::unique_lock<std::mutex> guard(lock);

	if (s->device != current_device)
		return cudaErrorInvalidResourceHandle;
	if (devices[s->device].lost)
		return cudaErrorIllegalAddress;
	calls++;
	for (const item &work : exec->work)
		put(s, work);
	proceed(s);
	return cudaSuccess;
}

cudaError_t
cudaGraphDestroy(cudaGraph_t graph)
{
	if (--graph->owners == 0)
		delete graph;
	return cudaSuccess;
}

cudaError_t
cudaGraphExecDestroy(cudaGraphExec_t exec)
{
	return cudaGraphDestroy(exec);
}

} // extern "C"
