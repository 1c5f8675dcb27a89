/* cpu_gemm.c - see cpu_gemm.h. */
#include "backend/cpu/cpu_gemm.h"

#include "backend/cpu/cpu_learn.h"
#include "base/least.h"
#include "blocks/blocks.h"

/* ---- weights as floats ---- */

/* Rows [row0, + k) and columns [col0, + n) of a packed matrix, in whole panels. */
static void
widen_packed(const m1b_cpu *c, const m1b_matrix *w, int row0, int k, int col0, int n, float *to)
{
	const size_t bytes = m1b_panel_of(w->type, w->cols).bytes;

	for (int r = 0; r < k; r += M1B_PANEL_ROWS)
		for (int j = 0; j < n; j += M1B_GROUP)
			c->k->packed->widen(
				&(m1b_widen){.type = w->type,
							 .panel = (const uint8_t *) w->data + (size_t) ((row0 + r) / M1B_PANEL_ROWS) * bytes,
							 .cols = w->cols,
							 .group = (col0 + j) / M1B_GROUP,
							 .to = to + (size_t) r * M1B_GEMM_COLUMNS + j,
							 .to_row = M1B_GEMM_COLUMNS});
}

/* Rows [row0, + k) and columns [col0, + n) of a matrix of a type that the kernel does not read. */
static void
widen(const m1b_cpu *c, const m1b_matrix *w, int row0, int k, int col0, int n, float *to)
{
	if (m1b_is_integer(w->type))
	{
		widen_packed(c, w, row0, k, col0, n, to);
		return;
	}
	for (int r = 0; r < k; r++)
		m1b_dequantize(w->type,
					   (const char *) w->data + (size_t) (row0 + r) * m1b_bytes(w->type, (size_t) w->cols) +
						   m1b_bytes(w->type, (size_t) col0),
					   (size_t) n, to + (size_t) r * M1B_GEMM_COLUMNS);
}

/* Whether a product's right side is to be made floats first, which many rows of the left side should share. */
static bool
is_widened(const m1b_gemm *p)
{
	return p->weight != NULL && p->weight->type != M1B_F32 && p->weight->type != M1B_BF16;
}

/* ---- tiles ---- */

typedef struct gemm_job
{
	m1b_cpu *c;
	const m1b_gemm *list;
	int n;
} gemm_job;

static int
columns_of_tiles(const m1b_gemm *p)
{
	return (p->n + M1B_GEMM_COLUMNS - 1) / M1B_GEMM_COLUMNS;
}

static int
rows_of_tile(const m1b_gemm *p)
{
	return is_widened(p) ? M1B_GEMM_WIDENED_ROWS : M1B_GEMM_ROWS;
}

static int
tiles_of(const m1b_gemm *p)
{
	return p->k == 0 ? 0 : (p->m + rows_of_tile(p) - 1) / rows_of_tile(p) * columns_of_tiles(p);
}

/* Points the product at rows [k0, k0 + mac->k) of its right side. */
static void
set_right(const m1b_cpu *c, m1b_mac *mac, const m1b_gemm *p, int k0, int j0, float *widened)
{
	const m1b_matrix *w = p->weight;
	const size_t at = (size_t) k0 * (w != NULL ? (size_t) w->cols : p->b_row) + (size_t) j0;

	mac->b_type = w != NULL && w->type == M1B_BF16 ? M1B_BF16 : M1B_F32;
	if (!is_widened(p))
	{
		mac->b = w == NULL ? (const void *) (p->b + at) : (const char *) w->data + m1b_bytes(w->type, at);
		mac->b_row = w == NULL ? p->b_row : (size_t) w->cols;
		return;
	}
	widen(c, w, k0, mac->k, j0, mac->n, widened);
	mac->b = widened;
	mac->b_row = M1B_GEMM_COLUMNS;
}

static void
gemm_tile(void *arg, int tile, int worker)
{
	const gemm_job *job = arg;
	const m1b_gemm *p = job->list + job->n - 1;
	int i0, j0;

	while (p->first_tile > tile)
		p--;
	i0 = (tile - p->first_tile) / columns_of_tiles(p) * rows_of_tile(p);
	j0 = (tile - p->first_tile) % columns_of_tiles(p) * M1B_GEMM_COLUMNS;
	for (int k0 = 0; k0 < p->k; k0 += M1B_GEMM_DEPTH)
	{
		m1b_mac mac = {.m = m1_min_int(rows_of_tile(p), p->m - i0),
					   .n = m1_min_int(M1B_GEMM_COLUMNS, p->n - j0),
					   .k = m1_min_int(M1B_GEMM_DEPTH, p->k - k0),
					   .a = p->a + (size_t) i0 * p->a_row + (size_t) k0 * p->a_col,
					   .a_row = p->a_row,
					   .a_col = p->a_col,
					   .c = p->c + (size_t) i0 * p->c_row + j0,
					   .c_row = p->c_row,
					   .scale = k0 > 0 || p->add ? 1.0f : 0.0f};

		set_right(job->c, &mac, p, k0, j0, m1b_cpu_learn_scratch(job->c, worker));
		job->c->k->mac(&mac);
	}
}

void
m1b_cpu_gemms(m1b_cpu *c, m1b_gemm *list, int n)
{
	gemm_job job = {.c = c, .list = list, .n = n};
	double work = 0;
	int tiles = 0;

	for (int i = 0; i < n; i++)
	{
		list[i].first_tile = tiles;
		tiles += tiles_of(&list[i]);
		work += (double) list[i].m * list[i].n * list[i].k;
	}
	m1b_cpu_loop(c, work, tiles, gemm_tile, &job);
}
