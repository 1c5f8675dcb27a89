/* quantize.c - see quantize.h. */
#include "model/quantize.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backend/blocks.h"
#include "base/pool.h"

#define PIECE_WEIGHTS 65536 /* of one piece of a loop, about */

struct m1_quantizer
{
	m1_pool *pool;
	float **rows; /* [threads][cap] */
	size_t cap;
};

/* ---- formats ---- */

static const char *const format_names[M1_WEIGHT_FORMATS] = {
	[M1_WEIGHTS_STORED] = "stored", [M1_WEIGHTS_Q8_0] = "q8_0", [M1_WEIGHTS_Q4] = "q4"};

bool
m1_weight_format_parse(const char *name, m1_weight_format *format)
{
	for (int i = 0; i < M1_WEIGHT_FORMATS; i++)
		if (strcmp(name, format_names[i]) == 0)
		{
			*format = (m1_weight_format) i;
			return true;
		}
	return false;
}

m1b_dtype
m1_weight_format_type(m1_weight_format format, m1_role role, const m1_weight *w)
{
	m1b_dtype type = M1B_Q8_0;

	if (format == M1_WEIGHTS_STORED || !m1_role_is_large(role) || m1b_is_quantized(w->type))
		return w->type;
	if (format == M1_WEIGHTS_Q4)
		type = w->cols % m1b_block_weights(M1B_Q4_K) == 0 ? M1B_Q4_K : M1B_Q4_0;
	return w->cols % m1b_block_weights(type) == 0 ? type : w->type;
}

/* ---- the work ---- */

m1_status
m1_quantizer_create(int threads, m1_quantizer **out, m1_error *err)
{
	m1_quantizer *q = calloc(1, sizeof *q);
	m1_status status;

	*out = NULL;
	if (q == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for quantizing");
	if ((status = m1_pool_create(threads, &q->pool, err)) != M1_OK)
	{
		free(q);
		return status;
	}
	if ((q->rows = calloc((size_t) m1_pool_size(q->pool), sizeof *q->rows)) == NULL)
	{
		m1_quantizer_free(q);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for quantizing");
	}
	*out = q;
	return M1_OK;
}

void
m1_quantizer_free(m1_quantizer *q)
{
	if (q == NULL)
		return;
	for (int i = 0; q->rows != NULL && i < m1_pool_size(q->pool); i++)
		free(q->rows[i]);
	free(q->rows);
	m1_pool_free(q->pool);
	free(q);
}

static m1_status
reserve_rows(m1_quantizer *q, size_t width, m1_error *err)
{
	if (width <= q->cap)
		return M1_OK;
	for (int i = 0; i < m1_pool_size(q->pool); i++)
	{
		free(q->rows[i]);
		q->rows[i] = malloc(width * sizeof **q->rows);
		if (q->rows[i] == NULL)
		{
			q->cap = 0;
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for rows of %zu weights", width);
		}
	}
	q->cap = width;
	return M1_OK;
}

typedef struct job
{
	m1_quantizer *q;
	const char *from;
	m1b_dtype from_type;
	char *to;
	m1b_dtype to_type;
	size_t width; /* weights of a row */
	int rows;
	int rows_per_piece;
	atomic_bool bad; /* some value cannot be quantized */
} job;

static void
convert_piece(void *arg, int piece, int worker)
{
	job *j = arg;
	const size_t from_bytes = m1b_bytes(j->from_type, j->width);
	const size_t to_bytes = m1b_bytes(j->to_type, j->width);
	const int first = piece * j->rows_per_piece;

	for (int r = first; r < first + j->rows_per_piece && r < j->rows; r++)
	{
		const char *from = j->from + (size_t) r * from_bytes;
		char *to = j->to + (size_t) r * to_bytes;
		float *row = j->q->rows[worker];

		m1b_dequantize(j->from_type, from, j->width, row);
		if (j->to_type == M1B_F32)
			memcpy(to, row, to_bytes);
		else if (!m1b_quantize(j->to_type, row, j->width, to))
			atomic_store(&j->bad, true);
	}
}

m1_status
m1_quantizer_run(m1_quantizer *q, const m1_weight *w, int first, int n, m1b_dtype to, void *out, m1_error *err)
{
	const size_t width = (size_t) (w->cols > 0 ? w->cols : w->rows);
	job j = {.q = q, .from_type = w->type, .to = out, .to_type = to, .width = width, .rows = n};
	m1_status status = reserve_rows(q, width, err);

	if (status != M1_OK)
		return status;
	j.from = (const char *) w->data + (size_t) first * m1b_bytes(w->type, width);
	j.rows_per_piece = width >= PIECE_WEIGHTS ? 1 : (int) (PIECE_WEIGHTS / width);
	m1_pool_run(q->pool, (n + j.rows_per_piece - 1) / j.rows_per_piece, convert_piece, &j);
	if (!atomic_load(&j.bad))
		return M1_OK;
	m1_fail(err, M1_E_CORRUPT, "tensor \"%s\" cannot be quantized", w->name);
	m1_error_detail(err, "It holds a value that is not a number, or beyond 65504.");
	return M1_E_CORRUPT;
}
