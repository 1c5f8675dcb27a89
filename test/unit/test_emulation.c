/* test_emulation.c - that the emulated GPU refuses what a device refuses: else no test of the backend would find it. */
#define _GNU_SOURCE /* MAP_FIXED_NOREPLACE */
#include "testing.h"

#include <cuda_runtime.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/m1k_learn.h"

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
	assert_int_equal(cudaEventSynchronize(event), cudaErrorCapturedEvent);
	assert_int_equal(cudaEventQuery(event), cudaErrorCapturedEvent);
	cudaStreamDestroy(stream);
	cudaStreamDestroy(other);
	cudaEventDestroy(event);
	cudaFreeHost(pinned);
}

/* ---- memory ---- */

#define BYTES 64

typedef struct places
{
	char *device;
	char *pinned;
	char *pageable;
	cudaStream_t stream;
} places;

static places
open_places(int device)
{
	places p;

	assert_int_equal(cudaSetDevice(device), cudaSuccess);
	assert_int_equal(cudaMalloc((void **) &p.device, BYTES), cudaSuccess);
	assert_int_equal(cudaHostAlloc((void **) &p.pinned, BYTES, cudaHostAllocDefault), cudaSuccess);
	assert_int_equal(cudaStreamCreateWithFlags(&p.stream, cudaStreamNonBlocking), cudaSuccess);
	assert_non_null(p.pageable = calloc(1, BYTES));
	return p;
}

static void
close_places(places *p)
{
	cudaFree(p->device);
	cudaFreeHost(p->pinned);
	cudaStreamDestroy(p->stream);
	free(p->pageable);
	cudaSetDevice(0);
}

/* A process that does this dies of it, and says why. */
static void
assert_dies(void (*does)(void), const char *says)
{
	char said[1024] = "";
	size_t length = 0;
	ssize_t more = 1;
	int ends[2];
	int status;
	pid_t child;

	assert_int_equal(pipe(ends), 0);
	if ((child = fork()) == 0)
	{
		signal(SIGSEGV, SIG_DFL); /* the test program would go on */
		signal(SIGABRT, SIG_DFL);
		dup2(ends[1], STDERR_FILENO);
		does();
		_exit(0);
	}
	close(ends[1]);
	while (length < sizeof said - 1 && (more = read(ends[0], said + length, sizeof said - 1 - length)) > 0)
		length += (size_t) more;
	close(ends[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	if (strstr(said, says) == NULL)
		fail_msg("it said \"%s\"", said);
}

static void
read_before_anything_ran(void)
{
	const volatile char *at = open_places(0).device;

	(void) at[3];
}

static void
write_after_something_ran(void)
{
	places p = open_places(0);

	cudaMemsetAsync(p.device, 0, BYTES, p.stream);
	cudaStreamSynchronize(p.stream);
	*(volatile char *) p.device = 1;
}

static void
read_beyond(void)
{
	const volatile char *at = open_places(0).device;

	(void) at[256];
}

static void
copy_from_another(void)
{
	const char *from = open_places(0).device;
	places p = open_places(1);

	cudaMemcpyAsync(p.device, from, BYTES, cudaMemcpyDeviceToDevice, p.stream);
	cudaStreamSynchronize(p.stream);
}

static void
test_memory_is_its_devices(void **state)
{
	(void) state;
	assert_dies(read_before_anything_ran, "the host touches memory of device 0: byte 3 of 64");
	assert_dies(write_after_something_ran, "the host touches memory of device 0: byte 0 of 64");
	assert_dies(read_beyond, "the host touches memory of device 0: byte 256 of 64");
	assert_dies(copy_from_another, "device 1 touches memory of device 0: byte 0 of 64");
}

static void
test_copies_are_told_where(void **state)
{
	places p = open_places(0);

	(void) state;
	for (int from = 0; from < 3; from++)
		for (int to = 0; to < 3; to++)
			for (int kind = cudaMemcpyHostToDevice; kind <= cudaMemcpyDeviceToDevice; kind++)
			{
				char *all[] = {p.device, p.pinned, p.pageable};
				const bool right =
					(from == 0) == (kind != cudaMemcpyHostToDevice) && (to == 0) == (kind != cudaMemcpyDeviceToHost);

				assert_int_equal(cudaMemcpyAsync(all[to], all[from], BYTES, (enum cudaMemcpyKind) kind, p.stream),
								 right ? cudaSuccess : cudaErrorInvalidValue);
			}
	assert_int_equal(cudaMemcpyAsync(p.device + 1, p.pinned, BYTES, cudaMemcpyHostToDevice, p.stream),
					 cudaErrorInvalidValue); /* beyond its end */
	assert_int_equal(cudaMemsetAsync(p.device, 0, BYTES, p.stream), cudaSuccess);
	assert_int_equal(cudaMemsetAsync(p.pageable, 0, BYTES, p.stream), cudaErrorInvalidValue);
	assert_int_equal(cudaMemsetAsync(p.device + 1, 0, BYTES, p.stream), cudaErrorInvalidValue);
	close_places(&p);
}

/* What was there before is neither what comes nor what may be used. */
static void
test_what_comes_is_waited_for(void **state)
{
	places p = open_places(0);
	cudaGraph_t graph;
	cudaGraphExec_t exec;

	(void) state;
	cudaMemsetAsync(p.device, 7, BYTES, p.stream);
	p.pinned[5] = 7;
	cudaMemcpyAsync(p.pinned, p.device, BYTES, cudaMemcpyDeviceToHost, p.stream);
	assert_int_equal(p.pinned[5], (char) 0xff);
	cudaStreamSynchronize(p.stream);
	assert_int_equal(p.pinned[5], 7);
	/* other memory has it when the call returns */
	cudaMemcpyAsync(p.pageable, p.device, BYTES, cudaMemcpyDeviceToHost, p.stream);
	assert_int_equal(p.pageable[5], 7);
	cudaStreamBeginCapture(p.stream, cudaStreamCaptureModeRelaxed);
	cudaMemcpyAsync(p.pinned, p.device, BYTES, cudaMemcpyDeviceToHost, p.stream);
	assert_int_equal(cudaStreamEndCapture(p.stream, &graph), cudaSuccess);
	cudaGraphInstantiate(&exec, graph, 0);
	assert_int_equal(p.pinned[5], 7);
	cudaGraphLaunch(exec, p.stream);
	assert_int_equal(p.pinned[5], (char) 0xff);
	cudaStreamSynchronize(p.stream);
	assert_int_equal(p.pinned[5], 7);
	cudaGraphExecDestroy(exec);
	cudaGraphDestroy(graph);
	close_places(&p);
}

static bool
reaches_host(const void *pointer)
{
	const struct
	{
		int rows, cols;
		const void *pointer;
		float eps;
	} argument = {.rows = 32000, .cols = 1 << 30, .pointer = pointer, .eps = 1e-5f};

	return emulated_points_to_host(&argument, sizeof argument);
}

#define MANY ((size_t) 64 << 20)

/* An address whose lower half is no number that kernels are given: such are taken for numbers. */
static const char *
far_from_numbers(const char *memory)
{
	const char *middle = memory + MANY / 2;

	return (uint32_t) (uintptr_t) middle < MANY / 2 ? memory : middle;
}

static void
test_kernels_do_not_reach_the_host(void **state)
{
	places p = open_places(0);
	char *host = malloc(MANY);

	(void) state;
	assert_non_null(host);
	assert_false(reaches_host(NULL));
	assert_false(reaches_host(p.device));
	assert_false(reaches_host(p.device + BYTES));
	assert_false(reaches_host(p.pinned));
	assert_true(reaches_host(far_from_numbers(host)));
	free(host);
	close_places(&p);
}

/* Writes a number, and behind it, where structures have a gap, what makes an address of the host's of both. Its page. */
static void *
spoil_gap(char *at, float number)
{
	uint64_t word = 0;
	void *page;

	memcpy(&word, &number, sizeof number);
	word |= (uint64_t) 0x7000 << 32; /* where no sanitizer has its memory */
	memcpy(at, &word, sizeof word);
	page = mmap((void *) (uintptr_t) word, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	assert_true(page != MAP_FAILED);
	assert_true(emulated_points_to_host(at, sizeof word));
	return page;
}

static void
test_gaps_in_arguments_are_no_pointers(void **state)
{
	const size_t at = offsetof(m1k_predict, temperature);
	places p = open_places(0);
	float *on_device = (float *) p.device;
	float *sent = (float *) p.pinned;
	const int no_mask = -1;
	m1k_predict k = {.logits = on_device,
					 .n = 1,
					 .vocab = 1,
					 .targets = (const int *) on_device + 1,
					 .mask_of = (const int *) on_device + 2,
					 .logprob = on_device + 3,
					 .entropy = on_device + 4,
					 .sum = on_device + 5};
	void *page = spoil_gap((char *) &k + at, 1.0f);

	(void) state;
	assert_true(offsetof(m1k_predict, targets) == at + 2 * sizeof k.temperature);
	memset(p.pinned, 0, BYTES);
	memcpy(sent + 2, &no_mask, sizeof no_mask);
	cudaMemcpyAsync(p.device, sent, BYTES, cudaMemcpyHostToDevice, p.stream);
	m1k_learn_predict(&k, p.stream);
	assert_int_equal(cudaStreamSynchronize(p.stream), cudaSuccess);
	cudaMemcpyAsync(sent, p.device, BYTES, cudaMemcpyDeviceToHost, p.stream);
	assert_int_equal(cudaStreamSynchronize(p.stream), cudaSuccess);
	assert_true(sent[5] == 1.0f);
	munmap(page, 4096);
	close_places(&p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared_memory_is_asked_for),
		cmocka_unit_test(test_recordings_are_refused),
		cmocka_unit_test(test_memory_is_its_devices),
		cmocka_unit_test(test_copies_are_told_where),
		cmocka_unit_test(test_what_comes_is_waited_for),
		cmocka_unit_test(test_kernels_do_not_reach_the_host),
		cmocka_unit_test(test_gaps_in_arguments_are_no_pointers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
