/*
 * cuda_runtime.h - the part of the CUDA runtime that the CUDA backend uses, on the
 * CPU: a stream does everything as late as it may (runtime.cpp), and a kernel's threads are
 * fibers (emulated_device.h). Found instead of the real header
 * when the backend is built for tests without a GPU. C and C++; any number of threads.
 *
 * Graphs: what is launched while recording is kept and run again by each launch of
 * the graph, with the arguments of the recording, as on a device. What a device refuses to
 * record is refused, and spoils the recording: copies of memory of the host that is not
 * pinned, and waits for events that were recorded elsewhere.
 *
 * Memory: 4 GiB a device, or as many as EMULATED_GIB in the environment says. It can be
 * touched while its device works, by what that does: the host that follows a pointer to it
 * ends the program (memory.cpp), and so does a kernel that is given a pointer to the host's,
 * unless it is pinned. Copies say truly from where to where they go. What is copied to pinned
 * memory is garbage there until somebody has waited for it.
 *
 * Several devices: a stream belongs to the device that was the thread's current one when
 * it was made, and takes work only while that is current. The memory of the others cannot be
 * touched then.
 */
#ifndef EMULATED_CUDA_RUNTIME_H
#define EMULATED_CUDA_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cudaError
{
	cudaSuccess = 0,
	cudaErrorInvalidValue = 1,
	cudaErrorMemoryAllocation = 2,
	cudaErrorNoDevice = 100,
	cudaErrorInsufficientDriver = 35,
	cudaErrorInvalidDevice = 101,
	cudaErrorInvalidResourceHandle = 400,
	cudaErrorNotReady = 600,
	cudaErrorIllegalAddress = 700,
	cudaErrorLaunchTimeout = 702,
	cudaErrorNotSupported = 801,
	cudaErrorStreamCaptureUnsupported = 900,
	cudaErrorStreamCaptureInvalidated = 901,
	cudaErrorStreamCaptureIsolation = 905,
	cudaErrorCapturedEvent = 907,
	cudaErrorStreamCaptureWrongThread = 908,
	cudaErrorUnknown = 999,
} cudaError_t;

typedef struct emulated_stream *cudaStream_t;
typedef struct emulated_event *cudaEvent_t;
typedef struct emulated_graph *cudaGraph_t;
typedef struct emulated_graph *cudaGraphExec_t;

typedef struct cudaDeviceProp
{
	char name[256];
	size_t totalGlobalMem;
	size_t sharedMemPerBlockOptin;
	int major, minor;
	int multiProcessorCount;
} cudaDeviceProp;

enum cudaMemcpyKind
{
	cudaMemcpyHostToDevice = 1,
	cudaMemcpyDeviceToHost = 2,
	cudaMemcpyDeviceToDevice = 3,
};

enum cudaFuncAttribute
{
	cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
};

enum cudaStreamCaptureMode
{
	cudaStreamCaptureModeThreadLocal = 1,
	cudaStreamCaptureModeRelaxed = 2,
};

#define cudaStreamNonBlocking 1
#define cudaEventDisableTiming 2
#define cudaHostAllocDefault 0

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError(void);

cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

/* The emulation's own: the devices of tests, what memory one has, and an error that the next launch raises. */
#define EMULATED_DEVICES 8
void emulated_set_devices(int count);
void emulated_set_memory(int device, size_t bytes);
void emulated_fail_next_launch(cudaError_t error);
/* So many recordings are spoilt, as by what cannot be recorded; returns how many had still been to come. */
int emulated_spoil_recordings(int count);
/* From now on, whatever the device is asked for fails. */
void emulated_lose_device(int device);
/* What has been put on streams so far, which takes a host its time: kernels, copies, and graphs, each as one. */
size_t emulated_calls(void);
/* Bytes of the host that are pinned now, which takes a driver its time. */
size_t emulated_pinned(void);
/* Bytes of dynamic shared memory that a kernel may be launched with on the current device, and whether it may with so many. */
cudaError_t emulated_allow_shared(const void *kernel, size_t bytes);
bool emulated_shared_is_allowed(const void *kernel, size_t bytes);
/* Whether a kernel's argument has an address that no device can reach: the host's, and not pinned. */
bool emulated_points_to_host(const void *argument, size_t bytes);
/* Kernels' exponentials are a bit too large from now on, as a device's may be. */
void emulated_round_exponentials_up(bool up);

#ifdef __cplusplus
}

#include <functional>

/* Puts work on the stream, or into the graph that it records. What the launch raises waits for cudaGetLastError. */
void emulated_enqueue(cudaStream_t stream, std::function<void()> work);

template <typename T>
static inline cudaError_t
cudaFuncSetAttribute(T *kernel, cudaFuncAttribute, int bytes)
{
	return emulated_allow_shared((const void *) kernel, (size_t) bytes);
}
#endif

#endif
