/* quantize.c - see quantize.h. */
#include "model/quantize.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "blocks/blocks.h"

#define PIECE_WEIGHTS 65536 /* of one piece of a loop, about */

struct m1_quantizer
{
	m1_pool *pool;
	float **rows; /* [threads][2 * cap]: a row as floats, and as it was stored */
	size_t cap;
};

/* ---- formats ---- */

static const char *const format_names[M1_WEIGHT_FORMATS] = {
	[M1_WEIGHTS_STORED] = "stored", [M1_WEIGHTS_Q8_0] = "q8_0", [M1_WEIGHTS_FP8] = "fp8", [M1_WEIGHTS_Q4] = "q4"};

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
	if (format == M1_WEIGHTS_FP8)
		type = M1B_F8_E4M3;
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
		q->rows[i] = malloc(2 * width * sizeof **q->rows);
		if (q->rows[i] == NULL)
		{
			q->cap = 0;
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for rows of %zu weights", width);
		}
	}
	q->cap = width;
	return M1_OK;
}

bool
m1_quantizer_makes(m1b_dtype type)
{
	return type == M1B_F32 || type == M1B_F16 || type == M1B_BF16 || m1b_can_quantize(type);
}

typedef enum fault
{
	FAULT_NONE,
	FAULT_VALUE,
	FAULT_SCALE
} fault;

typedef struct job
{
	m1_quantizer *q;
	const m1_weight *w;
	const m1_adapter_target *change;
	int first; /* row of w */
	char *to;
	m1b_dtype to_type;
	size_t width; /* weights of a row */
	int rows;
	int rows_per_piece;
	atomic_int fault; /* that some value has */
} job;

/* From numbers and scales that are apart. */
static fault
join_row(const job *j, int row, char *to)
{
	const size_t row_of_scales = (size_t) (row / M1_FP8_BLOCK) * (j->width / M1_FP8_BLOCK);
	const char *scales = (const char *) j->w->scales + m1b_bytes(j->w->scale_type, row_of_scales);
	bool bad_scale;

	if (m1b_e4m3_row((const uint8_t *) j->w->data + (size_t) row * j->width, j->w->scale_type, scales, j->width, to,
					 &bad_scale))
		return FAULT_NONE;
	return bad_scale ? FAULT_SCALE : FAULT_VALUE;
}

/* room: for a row of any type */
static fault
read_row(const job *j, int row, float *x, char *room)
{
	if (j->w->scales == NULL)
	{
		m1b_dequantize(j->w->type, (const char *) j->w->data + (size_t) row * m1b_bytes(j->w->type, j->width), j->width,
					   x);
		return FAULT_NONE;
	}
	else
	{
		const fault found = join_row(j, row, room);

		if (found == FAULT_NONE)
			m1b_dequantize(M1B_F8_E4M3, room, j->width, x);
		return found;
	}
}

/* Infinity and NaN have every bit of the exponent set; rounding may have made the former. */
static bool
is_finite(m1b_dtype type, uint16_t rounded)
{
	const uint16_t exponent = type == M1B_BF16 ? 0x7f80 : 0x7c00;

	return (rounded & exponent) != exponent;
}

static fault
write_halves(m1b_dtype type, const float *x, size_t n, char *to)
{
	bool finite = true;

	for (size_t i = 0; i < n; i++)
	{
		const uint16_t rounded = type == M1B_BF16 ? m1b_float_to_bf16(x[i]) : m1b_float_to_half(x[i]);

		finite = finite && is_finite(type, rounded);
		memcpy(to + i * sizeof rounded, &rounded, sizeof rounded);
	}
	return finite ? FAULT_NONE : FAULT_VALUE;
}

static fault
write_floats(const float *x, size_t n, char *to)
{
	bool finite = true;

	for (size_t i = 0; i < n; i++)
		finite = finite && isfinite(x[i]);
	memcpy(to, x, n * sizeof *x);
	return finite ? FAULT_NONE : FAULT_VALUE;
}

static fault
write_row(const job *j, const float *x, char *to)
{
	if (j->to_type == M1B_F32)
		return write_floats(x, j->width, to);
	if (j->to_type == M1B_BF16 || j->to_type == M1B_F16)
		return write_halves(j->to_type, x, j->width, to);
	return m1b_quantize(j->to_type, x, j->width, to) ? FAULT_NONE : FAULT_VALUE;
}

/* By way of floats. */
static fault
convert_row(const job *j, int row, int worker, char *to)
{
	float *x = j->q->rows[worker];
	const fault found = read_row(j, row, x, (char *) (x + j->width));

	if (found != FAULT_NONE)
		return found;
	if (j->change != NULL)
		m1_adapter_apply(j->change, row, 1, x);
	return write_row(j, x, to);
}

static void
convert_piece(void *arg, int piece, int worker)
{
	job *j = arg;
	const int first = piece * j->rows_per_piece;

	for (int r = first; r < first + j->rows_per_piece && r < j->rows; r++)
	{
		char *to = j->to + (size_t) r * m1b_bytes(j->to_type, j->width);
		const int row = j->first + r;
		const bool joins = j->w->scales != NULL && j->change == NULL && j->to_type == M1B_F8_E4M3;
		const fault found = joins ? join_row(j, row, to) : convert_row(j, row, worker, to);

		if (found != FAULT_NONE)
			atomic_store(&j->fault, found);
	}
}

static const char *
what_fails(const job *j)
{
	if (j->change != NULL)
		return "merged";
	return j->w->scales != NULL ? "used" : m1b_is_quantized(j->to_type) ? "quantized" : "converted";
}

/* Scales of quantized weights are halves. */
static const char *
limit_of(m1b_dtype type)
{
	return type == M1B_F32 || type == M1B_BF16 ? ", or beyond 3.4e38" : ", or beyond 65504";
}

static m1_status
refuse(const job *j, fault found, m1_error *err)
{
	if (found == FAULT_SCALE)
	{
		m1_fail(err, M1_E_CORRUPT, "tensor \"%s" M1_SCALE_SUFFIX "\" cannot be used", j->w->name);
		m1_error_detail(err, "It holds a scale that is not a number, negative, or so large that weights are infinite.");
		return M1_E_CORRUPT;
	}
	m1_fail(err, M1_E_CORRUPT, "tensor \"%s\" cannot be %s", j->w->name, what_fails(j));
	m1_error_detail(err, "It %s a value that is not a number%s.", j->change != NULL ? "would hold" : "holds",
					j->change == NULL && j->w->scales != NULL ? "" : limit_of(j->to_type));
	return M1_E_CORRUPT;
}

m1_status
m1_quantizer_run(m1_quantizer *q, const m1_weight *w, const m1_adapter_target *change, int first, int n, m1b_dtype to,
				 void *out, m1_error *err)
{
	const size_t width = (size_t) (w->cols > 0 ? w->cols : w->rows);
	job j = {.q = q, .w = w, .change = change, .first = first, .to = out, .to_type = to, .width = width, .rows = n};
	m1_status status = reserve_rows(q, width, err);

	if (status != M1_OK)
		return status;
	j.rows_per_piece = width >= PIECE_WEIGHTS ? 1 : (int) (PIECE_WEIGHTS / width);
	m1_pool_run(q->pool, (n + j.rows_per_piece - 1) / j.rows_per_piece, convert_piece, &j);
	return atomic_load(&j.fault) == FAULT_NONE ? M1_OK : refuse(&j, (fault) atomic_load(&j.fault), err);
}
