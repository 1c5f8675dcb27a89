/*
 * emulation.cpp - kernels on the emulated device: fibers for a block's threads. One
 * kernel runs at a time: runtime.cpp holds its lock meanwhile.
 */
#include "emulated_device.h"

#include <functional>
#include <stdio.h>
#include <sys/mman.h>
#include <tuple>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* ---- fibers ---- */

#define STACK_BYTES ((size_t) 256 << 10) /* touched as it is used; sanitizers make frames large */
#define MAX_THREADS 1024
#define MAX_WORDS 8
#define MAX_GROUPS 16

namespace
{

enum fiber_state
{
	READY,
	WARP_WAIT,
	BLOCK_WAIT,
	DONE,
};

struct copy_piece
{
	void *to;
	const void *from;
	bool valid;
};

struct fiber
{
	fiber_state state;
#if defined(__x86_64__)
	void *stack_pointer;
#else
	ucontext_t context;
#endif
	char *stack;
	int exchanges; /* how many this fiber has made: which of the two slots is in use */
	std::vector<copy_piece> copies[MAX_GROUPS];
	int committed;
	int waited;
};

struct warp
{
	int arrived;
	uint32_t slots[2][32 * MAX_WORDS];
};

fiber fibers[MAX_THREADS];
warp warps[MAX_THREADS / 32];
int n_threads;
int current;
int at_barrier;
int live;
const std::function<void()> *body;
char *dynamic_shared;
uint64_t order_seed = 88172645463325252ull;

uint32_t
random_number()
{
	order_seed ^= order_seed << 13;
	order_seed ^= order_seed >> 7;
	order_seed ^= order_seed << 17;
	return (uint32_t) (order_seed >> 32);
}

[[noreturn]] void
give_up(const char *why)
{
	fprintf(stderr, "emulated kernel: %s (block %u %u %u, thread %d)\n", why, blockIdx.x, blockIdx.y, blockIdx.z,
			current);
	abort();
}

void finish_fiber();

void
run_fiber()
{
	(*body)();
	finish_fiber();
}

#if defined(__x86_64__)
void *scheduler_pointer;

/* Saves the registers that a called function must keep, and goes on where `to` stopped. */
extern "C" void emulated_switch(void **from, void *to);
asm(".text\n"
	".globl emulated_switch\n"
	"emulated_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n");

void
start_fiber(fiber *f)
{
	void **top = (void **) (f->stack + STACK_BYTES);

	*--top = nullptr; /* no caller; keeps the stack aligned as after a call */
	*--top = (void *) run_fiber;
	for (int i = 0; i < 6; i++)
		*--top = nullptr;
	f->stack_pointer = top;
}

void
to_fiber(fiber *f)
{
	emulated_switch(&scheduler_pointer, f->stack_pointer);
}

void
to_scheduler(fiber *f)
{
	emulated_switch(&f->stack_pointer, scheduler_pointer);
}
#else
ucontext_t scheduler_context;

void
start_fiber(fiber *f)
{
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = f->stack;
	f->context.uc_stack.ss_size = STACK_BYTES;
	f->context.uc_link = nullptr;
	makecontext(&f->context, run_fiber, 0);
}

void
to_fiber(fiber *f)
{
	swapcontext(&scheduler_context, &f->context);
}

void
to_scheduler(fiber *f)
{
	swapcontext(&f->context, &scheduler_context);
}
#endif

void
set_thread(int t)
{
	current = t;
	threadIdx.x = (unsigned) t % blockDim.x;
	threadIdx.y = (unsigned) t / blockDim.x % blockDim.y;
	threadIdx.z = (unsigned) t / blockDim.x / blockDim.y;
}

void
yield(fiber_state why)
{
	const int me = current;

	fibers[me].state = why;
	to_scheduler(&fibers[me]);
	set_thread(me);
}

int
lanes_of(int w)
{
	return n_threads - w * 32 < 32 ? n_threads - w * 32 : 32;
}

void
wake(int first, int n, fiber_state from)
{
	for (int t = first; t < first + n; t++)
		if (fibers[t].state == from)
			fibers[t].state = READY;
}

void
pass_block_barrier()
{
	if (at_barrier > 0 && at_barrier == live)
	{
		at_barrier = 0;
		wake(0, n_threads, BLOCK_WAIT);
	}
}

/* A thread that has returned no longer counts at barriers of the block, as on the device. */
void
finish_fiber()
{
	live--;
	pass_block_barrier();
	yield(DONE);
	abort();
}

void
run_block()
{
	/* an odd stride visits all threads, in an order of its own for each block */
	const int start = (int) (random_number() % (unsigned) n_threads);
	const int stride = random_number() % 2 ? 1 : n_threads - 1;

	live = n_threads;
	at_barrier = 0;
	for (int t = 0; t < n_threads; t++)
	{
		fiber *f = &fibers[t];

		if (f->stack == nullptr)
		{
			f->stack = (char *) mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
									 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			if (f->stack == MAP_FAILED)
				give_up("no memory for a thread's stack");
		}
		f->state = READY;
		f->exchanges = f->committed = f->waited = 0;
		for (auto &group : f->copies)
			group.clear();
		start_fiber(f);
	}
	for (int w = 0; w * 32 < n_threads; w++)
		warps[w].arrived = 0;
	while (live > 0)
	{
		bool progress = false;

		for (int i = 0, t = start; i < n_threads; i++, t = (t + stride) % n_threads)
			if (fibers[t].state == READY)
			{
				set_thread(t);
				to_fiber(&fibers[t]);
				progress = true;
			}
		if (!progress)
			give_up("some threads wait at a barrier that others never reach");
	}
	for (int t = 0; t < n_threads; t++)
		for (auto &group : fibers[t].copies)
			if (!group.empty())
				give_up("a copy was started and never waited for");
}

} // namespace

void
__syncthreads(void)
{
	at_barrier++;
	fibers[current].state = BLOCK_WAIT;
	pass_block_barrier();
	yield(fibers[current].state);
}

static void
arrive_at_warp(void)
{
	const int w = current / 32;

	fibers[current].state = WARP_WAIT;
	if (++warps[w].arrived == lanes_of(w))
	{
		warps[w].arrived = 0;
		wake(w * 32, lanes_of(w), WARP_WAIT);
	}
	yield(fibers[current].state);
}

void
__syncwarp(void)
{
	arrive_at_warp();
}

const uint32_t *
emulated_exchange(const uint32_t *mine, int words)
{
	/* two slots in turn: a lane may be one exchange ahead of one that still reads */
	const int slot = fibers[current].exchanges++ % 2;
	uint32_t *all = warps[current / 32].slots[slot];

	memcpy(all + current % 32 * words, mine, (size_t) words * sizeof *mine);
	arrive_at_warp();
	return all;
}

void
m1k_copy_async(void *to, const void *from, bool valid)
{
	fiber *f = &fibers[current];

	if (((uintptr_t) to | (uintptr_t) from) % 16 != 0)
		give_up("a 16-byte copy is not aligned");
	f->copies[f->committed % MAX_GROUPS].push_back({to, from, valid});
}

void
m1k_copy_commit(void)
{
	fibers[current].committed++;
}

void
emulated_copy_wait(int pending)
{
	fiber *f = &fibers[current];

	for (; f->waited < f->committed - pending; f->waited++)
	{
		for (const copy_piece &piece : f->copies[f->waited % MAX_GROUPS])
			if (piece.valid)
				memcpy(piece.to, piece.from, 16);
			else
				memset(piece.to, 0, 16);
		f->copies[f->waited % MAX_GROUPS].clear();
	}
}

void *
emulated_dynamic_shared(void)
{
	return dynamic_shared;
}

void
emulated_launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &thread)
{
	n_threads = (int) (block.x * block.y * block.z);
	if (n_threads < 1 || n_threads > MAX_THREADS || grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 ||
		grid.z > 65535 || shared > 227 * 1024)
		give_up("the launch asks for more than a device has");
	body = &thread;
	blockDim = block;
	gridDim = grid;
	/* exactly as large as asked for, so that a sanitizer sees what goes beyond */
	dynamic_shared = (char *) aligned_alloc(128, (shared + 127) / 128 * 128 + 128);
	for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
		for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
			for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
			{
				memset(dynamic_shared, 0xff, shared); /* NaN */
				run_block();
			}
	free(dynamic_shared);
	dynamic_shared = nullptr;
}
