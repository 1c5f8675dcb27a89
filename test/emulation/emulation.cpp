/*
 * emulation.cpp - kernels on the emulated device: launches, shared memory, and copies that take effect late. One kernel
 * runs at a time: runtime.cpp holds its lock meanwhile.
 */
#include "fibers.h"

#include <string.h>
#include <vector>

#define MAX_GROUPS 16

namespace
{

struct copy_piece
{
	void *to;
	const void *from;
	bool valid;
};

/* A thread's groups of copies. */
struct copy_groups
{
	int committed;
	int waited;
};

copy_groups groups[EMULATED_MAX_THREADS];
std::vector<copy_piece> copies[EMULATED_MAX_THREADS][MAX_GROUPS];
int pieces_under_way;
char *dynamic_shared;

} // namespace

void
m1k_copy_async(void *to, const void *from, bool valid)
{
	const copy_groups *g = &groups[emulated_thread];

	if (((uintptr_t) to | (uintptr_t) from) % 16 != 0)
		emulated_give_up("a 16-byte copy is not aligned");
	copies[emulated_thread][g->committed % MAX_GROUPS].push_back({to, from, valid});
	pieces_under_way++;
}

void
m1k_copy_commit(void)
{
	groups[emulated_thread].committed++;
}

void
emulated_copy_wait(int pending)
{
	copy_groups *g = &groups[emulated_thread];

	for (; g->waited < g->committed - pending; g->waited++)
	{
		std::vector<copy_piece> *group = &copies[emulated_thread][g->waited % MAX_GROUPS];

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

	if (threads < 1 || threads > EMULATED_MAX_THREADS || grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 ||
		grid.z > 65535 || shared > 227 * 1024)
		emulated_give_up("the launch asks for more than a device has");
	blockDim = block;
	gridDim = grid;
	emulated_set_up_threads(block);
	/* exactly as large as asked for, so that a sanitizer sees what goes beyond */
	dynamic_shared = (char *) aligned_alloc(128, (shared + 127) / 128 * 128 + 128);
	for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
		for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
			for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
			{
				memset(dynamic_shared, 0xff, shared); /* NaN */
				memset(groups, 0, threads * sizeof *groups);
				emulated_run_block(thread);
				if (pieces_under_way > 0)
					emulated_give_up("a copy was started and never waited for");
			}
	free(dynamic_shared);
	dynamic_shared = nullptr;
}
