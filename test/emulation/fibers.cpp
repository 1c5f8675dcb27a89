/*
 * fibers.cpp - the threads of a block as fibers, and what they do together: barriers, exchanges of a warp, and the
 * product of a warp, which is one. Compiled without sanitizers in every build: half of an emulated kernel's time would
 * be theirs, and nothing here touches a kernel's memory.
 */
#include "fibers.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
int emulated_thread;

#define STACK_BYTES ((size_t) 256 << 10) /* touched as it is used; sanitizers make frames large */
/* The tops of stacks that lie alike in a cache would drive each other out of it. */
#define STACK_STEP (STACK_BYTES + 4096 + 576)
#define MAX_WARPS (EMULATED_MAX_THREADS / 32)
#define MAX_WORDS 8

namespace
{

struct fiber
{
#if defined(__x86_64__)
	void *stack_pointer;
#else
	ucontext_t context;
#endif
	int exchanges; /* how many this fiber has made: which of the two slots is in use */
};

/* A bit a lane in each. */
struct warp
{
	uint32_t all;
	uint32_t alive;	  /* those that have not returned */
	uint32_t ready;	  /* those that can go on; the one that runs is among them */
	uint32_t arrived; /* those that wait for the others */
};

/* What a warp's lanes have given, and the product of it. */
struct exchange
{
	uint32_t given[32 * MAX_WORDS];
	float product[16][8];
};

fiber main_fiber; /* what launches */
fiber fibers[EMULATED_MAX_THREADS];
uint3 indexes[EMULATED_MAX_THREADS];
warp warps[MAX_WARPS];
/* two slots in turn: a lane may be one exchange ahead of one that still reads */
exchange exchanges[MAX_WARPS][2];
char *stacks;
int n_threads;
int n_warps;
bool forwards; /* the order in which this block's threads go on */
int at_barrier;
int live;
const std::function<void()> *body;
uint64_t order_seed = 88172645463325252ull;

uint32_t
random_number()
{
	order_seed ^= order_seed << 13;
	order_seed ^= order_seed >> 7;
	order_seed ^= order_seed << 17;
	return (uint32_t) (order_seed >> 32);
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
	emulated_thread = t;
	threadIdx = indexes[t];
}

/* The next thread in the block's order that can go on, the current one last; -1: none. */
int
next_ready()
{
	const int lane = emulated_thread % 32;
	uint32_t looked_at = forwards ? ~1u << lane : (1u << lane) - 1;
	int w = emulated_thread / 32;

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
	fiber *me = &fibers[emulated_thread];
	const int next = next_ready();

	if (next < 0)
		emulated_give_up("some threads wait at a barrier that others never reach");
	if (next != emulated_thread)
	{
		set_thread(next);
		switch_fiber(me, &fibers[next]);
	}
}

void
stop_here()
{
	warps[emulated_thread / 32].ready &= ~(1u << emulated_thread % 32);
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
	warps[emulated_thread / 32].alive &= ~(1u << emulated_thread % 32);
	live--;
	pass_block_barrier();
	if (live > 0)
		let_others_go_on();
	else
		switch_fiber(&fibers[emulated_thread], &main_fiber);
	abort();
}

/* Whether the whole warp is here now, and goes on. */
bool
arrive()
{
	warp *w = &warps[emulated_thread / 32];

	stop_here();
	w->arrived |= 1u << emulated_thread % 32;
	if (w->arrived != w->all)
		return false;
	w->arrived = 0;
	w->ready = w->all;
	return true;
}

exchange *
give(const uint32_t *mine, int words)
{
	exchange *e = &exchanges[emulated_thread / 32][fibers[emulated_thread].exchanges++ % 2];

	for (int i = 0; i < words; i++) /* memcpy would be a sanitizer's */
		e->given[emulated_thread % 32 * words + i] = mine[i];
	return e;
}

/*
 * Of six words a lane, four of a and two of b: with g = lane / 4 and i = lane % 4, register r of a has
 * a[g + 8 (r % 2)][2 i + 8 (r / 2)] and its right neighbour, register r of b has b[2 i + 8 r][g] and the one below.
 */
void
multiply(const uint32_t *given, float product[16][8])
{
	float a[16][16], b[16][8];

	for (int lane = 0; lane < 32; lane++)
		for (int half = 0; half < 2; half++)
		{
			const int g = lane / 4, i = lane % 4 * 2 + half;

			for (int r = 0; r < 4; r++)
				a[g + r % 2 * 8][i + r / 2 * 8] = emulated_bf16(given[lane * 6 + r], half);
			for (int r = 0; r < 2; r++)
				b[i + r * 8][g] = emulated_bf16(given[lane * 6 + 4 + r], half);
		}
	memset(product, 0, 16 * 8 * sizeof(float));
	for (int row = 0; row < 16; row++)
		for (int k = 0; k < 16; k++)
			for (int column = 0; column < 8; column++)
				product[row][column] += a[row][k] * b[k][column];
}

} // namespace

void
emulated_give_up(const char *why)
{
	fprintf(stderr, "emulated kernel: %s (block %u %u %u, thread %d)\n", why, blockIdx.x, blockIdx.y, blockIdx.z,
			emulated_thread);
	abort();
}

void
emulated_set_up_threads(dim3 block)
{
	n_threads = (int) (block.x * block.y * block.z);
	n_warps = (n_threads + 31) / 32;
	for (int w = 0; w < n_warps; w++)
		warps[w].all = w * 32 + 32 > n_threads ? (1u << n_threads % 32) - 1 : ~0u;
	for (unsigned t = 0; t < (unsigned) n_threads; t++)
		indexes[t] = {t % block.x, t / block.x % block.y, t / block.x / block.y};
	if (stacks != nullptr)
		return;
	stacks = (char *) mmap(nullptr, EMULATED_MAX_THREADS * STACK_STEP, PROT_READ | PROT_WRITE,
						   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stacks == MAP_FAILED)
		emulated_give_up("no memory for the threads' stacks");
}

/* Its threads take turns in an order of its own: which is first, and whether upwards or downwards. */
void
emulated_run_block(const std::function<void()> &thread)
{
	const int first = (int) (random_number() % (unsigned) n_threads);

	forwards = random_number() % 2;
	body = &thread;
	live = n_threads;
	at_barrier = 0;
	for (int t = 0; t < n_threads; t++)
	{
		fibers[t].exchanges = 0;
		start_fiber(&fibers[t], stack_of(t));
	}
	for (int w = 0; w < n_warps; w++)
	{
		warps[w].alive = warps[w].ready = warps[w].all;
		warps[w].arrived = 0;
	}
	set_thread(first);
	switch_fiber(&main_fiber, &fibers[first]);
}

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
	arrive();
	let_others_go_on();
}

const uint32_t *
emulated_exchange(const uint32_t *mine, int words)
{
	exchange *e = give(mine, words);

	__syncwarp();
	return e->given;
}

const float (*emulated_product(const uint32_t *mine))[8]
{
	exchange *e = give(mine, 6);

	/* who comes last multiplies for all */
	if (arrive())
		multiply(e->given, e->product);
	let_others_go_on();
	return e->product;
}

template <typename T>
T
emulated_warp_sum(T x)
{
	uint32_t mine[sizeof x / 4];
	exchange *e;

	memcpy(mine, &x, sizeof x);
	e = give(mine, sizeof x / 4);
	if (arrive())
	{
		T all[32];

		memcpy(all, e->given, sizeof all);
		for (int lanes = 16; lanes > 0; lanes /= 2)
			for (int i = 0; i < lanes; i++)
				all[i] += all[i + lanes];
		memcpy(e->product, all, sizeof x);
	}
	let_others_go_on();
	memcpy(&x, e->product, sizeof x);
	return x;
}

template float emulated_warp_sum(float);
template double emulated_warp_sum(double);
template int emulated_warp_sum(int);
template unsigned emulated_warp_sum(unsigned);
template unsigned long long emulated_warp_sum(unsigned long long);
