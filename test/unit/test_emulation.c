/* test_emulation.c - that the emulated GPU refuses what a device refuses: else no test of the backend would find it. */
#include "testing.h"

#include <cuda_runtime.h>
#include <stdbool.h>

static void
test_shared_memory_is_asked_for(void **state)
{
	static const char kernel;

	(void) state;
	assert_true(emulated_shared_is_allowed(&kernel, 47 << 10));
	assert_false(emulated_shared_is_allowed(&kernel, 48 << 10)); /* with what the kernel has itself */
	assert_int_equal(emulated_allow_shared(&kernel, 228 << 10), cudaErrorInvalidValue);
	assert_int_equal(emulated_allow_shared(&kernel, 64 << 10), cudaSuccess);
	assert_true(emulated_shared_is_allowed(&kernel, 64 << 10));
	assert_false(emulated_shared_is_allowed(&kernel, 65 << 10));
	assert_int_equal(cudaSetDevice(1), cudaSuccess);
	assert_false(emulated_shared_is_allowed(&kernel, 64 << 10));
	assert_int_equal(cudaSetDevice(0), cudaSuccess);
}

/* Puts on a stream that records: the answer; the recording is of no use then. */
static void
assert_spoils(cudaStream_t stream, cudaError_t (*does)(cudaStream_t, void *), void *what, cudaError_t answer)
{
	cudaGraph_t graph;

	assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), cudaSuccess);
	assert_int_equal(does(stream, what), answer);
	assert_int_equal(cudaStreamEndCapture(stream, &graph),
					 answer == cudaSuccess ? cudaSuccess : cudaErrorStreamCaptureInvalidated);
	if (graph != NULL)
		cudaGraphDestroy(graph);
}

static cudaError_t
copy_there(cudaStream_t stream, void *host)
{
	static void *device;

	assert_int_equal(cudaMalloc(&device, 64), cudaSuccess);
	return cudaMemcpyAsync(device, host, 64, cudaMemcpyHostToDevice, stream);
}

static cudaError_t
copy_back(cudaStream_t stream, void *host)
{
	void *device;

	assert_int_equal(cudaMalloc(&device, 64), cudaSuccess);
	return cudaMemcpyAsync(host, device, 64, cudaMemcpyDeviceToHost, stream);
}

static cudaError_t
wait_for_event(cudaStream_t stream, void *event)
{
	return cudaStreamWaitEvent(stream, event, 0);
}

static cudaError_t
wait_for_own_event(cudaStream_t stream, void *event)
{
	assert_int_equal(cudaEventRecord(event, stream), cudaSuccess);
	return cudaStreamWaitEvent(stream, event, 0);
}

static void
test_recordings_are_refused(void **state)
{
	char pageable[64] = {0};
	void *pinned;
	cudaStream_t stream, other;
	cudaEvent_t event;

	(void) state;
	assert_int_equal(cudaSetDevice(0), cudaSuccess);
	assert_int_equal(cudaHostAlloc(&pinned, 64, cudaHostAllocDefault), cudaSuccess);
	assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
	assert_int_equal(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
	assert_int_equal(cudaEventCreateWithFlags(&event, 0), cudaSuccess);
	assert_spoils(stream, copy_there, pageable, cudaErrorStreamCaptureUnsupported);
	assert_spoils(stream, copy_back, pageable, cudaErrorStreamCaptureUnsupported);
	assert_spoils(stream, copy_there, pinned, cudaSuccess);
	assert_int_equal(cudaEventRecord(event, other), cudaSuccess);
	assert_spoils(stream, wait_for_event, event, cudaErrorStreamCaptureIsolation);
	assert_spoils(stream, wait_for_own_event, event, cudaSuccess);
	/* it belongs to the recording now */
	assert_int_equal(cudaStreamWaitEvent(other, event, 0), cudaErrorCapturedEvent);
	cudaStreamDestroy(stream);
	cudaStreamDestroy(other);
	cudaEventDestroy(event);
	cudaFreeHost(pinned);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared_memory_is_asked_for),
		cmocka_unit_test(test_recordings_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
