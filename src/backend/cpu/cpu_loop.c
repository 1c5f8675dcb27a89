/*
 * cpu_loop.c - how the CPU backend divides an operation among the pool's threads. Called
 * by the operations, on the step thread.
 */
#include "backend/cpu/cpu_internal.h"

/* Below this many multiply-adds a loop is not worth waking another thread for. */
#define SERIAL_WORK 100000.0

void
m1b_cpu_loop(m1b_cpu *c, double work, int pieces, m1_pool_fn fn, void *arg)
{
	if (work < SERIAL_WORK)
		for (int i = 0; i < pieces; i++)
			fn(arg, i, 0);
	else
		m1_pool_run(c->pool, pieces, fn, arg);
}

int
m1b_cpu_rows_per_piece(const m1b_cpu *c, int rows, int parts)
{
	/* Eight pieces a thread even out their speeds; whole panels fill the kernels' tiles. */
	int per = rows * parts / (8 * m1_pool_size(c->pool));

	per = (per + M1B_PANEL_ROWS - 1) / M1B_PANEL_ROWS * M1B_PANEL_ROWS;
	return per < M1B_PANEL_ROWS ? M1B_PANEL_ROWS : per > M1B_MAX_PIECE_ROWS ? M1B_MAX_PIECE_ROWS : per;
}
