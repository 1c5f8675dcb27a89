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
/* The tops of stacks that lie alike in a cache would drive each other out of it. */
#define STACK_STEP (STACK_BYTES + 4096 + 576)
#define MAX_THREADS 1024
#define MAX_WARPS (MAX_THREADS / 32)
#define MAX_WORDS 8
#define MAX_GROUPS 16

namespace
{

struct copy_piece
{
	void *to;
	const void *from;
	bool valid;
};

struct fiber
{
#if defined(__x86_64__)
	void *stack_pointer;
#else
	ucontext_t context;
#endif
	int exchanges; /* how many this fiber has made: which of the two slots is in use */
	int committed; /* groups of copies */
	int waited;
};

/* A bit a lane in each. */
struct warp
{
	uint32_t all;
	uint32_t alive;	  /* those that have not returned */
	uint32_t ready;	  /* those that can go on; the one that runs is among them */
	uint32_t arrived; /* those that wait for the others */
};

fiber main_fiber; /* what launches */
fiber fibers[MAX_THREADS];
uint3 indexes[MAX_THREADS];
std::vector<copy_piece> copies[MAX_THREADS][MAX_GROUPS];
int pieces_under_way;
warp warps[MAX_WARPS];
uint32_t exchanged[MAX_WARPS][2][32 * MAX_WORDS];
char *stacks;
int n_threads;
int n_warps;
int current;
bool forwards; /* the order in which this block's threads go on */
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

char *
stack_of(int t)
{
	return stacks + (size_t) t * STACK_STEP;
}

#if defined(__x86_64__)
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
start_fiber(fiber *f, char *stack)
{
	void **top = (void **) (stack + STACK_BYTES);

	*--top = nullptr; /* no caller; keeps the stack aligned as after a call */
	*--top = (void *) run_fiber;
	for (int i = 0; i < 6; i++)
		*--top = nullptr;
	f->stack_pointer = top;
}

void
switch_fiber(fiber *from, const fiber *to)
{
	emulated_switch(&from->stack_pointer, to->stack_pointer);
}
#else
void
start_fiber(fiber *f, char *stack)
{
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = stack;
	f->context.uc_stack.ss_size = STACK_BYTES;
	f->context.uc_link = nullptr;
	makecontext(&f->context, run_fiber, 0);
}

void
switch_fiber(fiber *from, const fiber *to)
{
	swapcontext(&from->context, &to->context);
}
#endif

void
set_thread(int t)
{
	current = t;
	threadIdx = indexes[t];
}

/* The next thread in the block's order that can go on, the current one last; -1: none. */
int
next_ready()
{
	const int lane = current % 32;
	uint32_t looked_at = forwards ? ~1u << lane : (1u << lane) - 1;
	int w = current / 32;

	for (int i = 0; i <= n_warps; i++)
	{
		const uint32_t found = warps[w].ready & looked_at;

		if (found != 0)
			return w * 32 + (forwards ? __builtin_ctz(found) : 31 - __builtin_clz(found));
		if (forwards)
			w = w + 1 < n_warps ? w + 1 : 0;
		else
			w = w > 0 ? w - 1 : n_warps - 1;
		looked_at = ~0u;
	}
	return -1;
}

/* Returns when it is the current thread's turn again. */
void
let_others_go_on()
{
	fiber *me = &fibers[current];
	const int next = next_ready();

	if (next < 0)
		give_up("some threads wait at a barrier that others never reach");
	if (next != current)
	{
		set_thread(next);
		switch_fiber(me, &fibers[next]);
	}
}

void
stop_here()
{
	warps[current / 32].ready &= ~(1u << current % 32);
}

void
pass_block_barrier()
{
	if (at_barrier > 0 && at_barrier == live)
	{
		at_barrier = 0;
		for (int w = 0; w < n_warps; w++)
			warps[w].ready = warps[w].alive;
	}
}

/* A thread that has returned no longer counts at barriers of the block, as on the device. */
void
finish_fiber()
{
	stop_here();
	warps[current / 32].alive &= ~(1u << current % 32);
	live--;
	pass_block_barrier();
	if (live > 0)
		let_others_go_on();
	else
		switch_fiber(&fibers[current], &main_fiber);
	abort();
}

/* Its threads take turns in an order of its own: which is first, and whether upwards or downwards. */
void
run_block()
{
	const int first = (int) (random_number() % (unsigned) n_threads);

	forwards = random_number() % 2;
	live = n_threads;
	at_barrier = 0;
	for (int t = 0; t < n_threads; t++)
	{
		fibers[t].exchanges = fibers[t].committed = fibers[t].waited = 0;
		start_fiber(&fibers[t], stack_of(t));
	}
	for (int w = 0; w < n_warps; w++)
	{
		warps[w].alive = warps[w].ready = warps[w].all;
		warps[w].arrived = 0;
	}
	set_thread(first);
	switch_fiber(&main_fiber, &fibers[first]);
	if (pieces_under_way > 0)
		give_up("a copy was started and never waited for");
}

/* What the launch's blocks have in common. */
void
set_up_threads(dim3 block)
{
	n_threads = (int) (block.x * block.y * block.z);
	n_warps = (n_threads + 31) / 32;
	for (int w = 0; w < n_warps; w++)
		warps[w].all = w * 32 + 32 > n_threads ? (1u << n_threads % 32) - 1 : ~0u;
	for (unsigned t = 0; t < (unsigned) n_threads; t++)
		indexes[t] = {t % block.x, t / block.x % block.y, t / block.x / block.y};
	if (stacks != nullptr)
		return;
	stacks = (char *) mmap(nullptr, MAX_THREADS * STACK_STEP, PROT_READ | PROT_WRITE,
						   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stacks == MAP_FAILED)
		give_up("no memory for the threads' stacks");
}

} // namespace

void
__syncthreads(void)
{
	stop_here();
	at_barrier++;
	pass_block_barrier();
	let_others_go_on();
}

void
__syncwarp(void)
{
	warp *w = &warps[current / 32];

	stop_here();
	w->arrived |= 1u << current % 32;
	if (w->arrived == w->all)
	{
		w->arrived = 0;
		w->ready = w->all;
	}
	let_others_go_on();
}

const uint32_t *
emulated_exchange(const uint32_t *mine, int words)
{
	/* two slots in turn: a lane may be one exchange ahead of one that still reads */
	const int slot = fibers[current].exchanges++ % 2;
	uint32_t *all = exchanged[current / 32][slot];

	memcpy(all + current % 32 * words, mine, (size_t) words * sizeof *mine);
	__syncwarp();
	return all;
}

void
m1k_copy_async(void *to, const void *from, bool valid)
{
	const fiber *f = &fibers[current];

	if (((uintptr_t) to | (uintptr_t) from) % 16 != 0)
		give_up("a 16-byte copy is not aligned");
	copies[current][f->committed % MAX_GROUPS].push_back({to, from, valid});
	pieces_under_way++;
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
		std::vector<copy_piece> *group = &copies[current][f->waited % MAX_GROUPS];

		for (const copy_piece &piece : *group)
			if (piece.valid)
				memcpy(piece.to, piece.from, 16);
			else
				memset(piece.to, 0, 16);
		pieces_under_way -= (int) group->size();
		group->clear();
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
	const size_t threads = (size_t) block.x * block.y * block.z;

	if (threads < 1 || threads > MAX_THREADS || grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 ||
		grid.z > 65535 || shared > 227 * 1024)
		give_up("the launch asks for more than a device has");
	body = &thread;
	blockDim = block;
	gridDim = grid;
	set_up_threads(block);
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
