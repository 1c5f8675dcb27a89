/*
 * cpu_kernels.c - see cpu_kernels.h. Compiled once per instruction set, see cpu_isa.h.
 */
#include "backend/cpu/cpu_kernels.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_rows.h"

#define DOT_COLS 4 /* weight rows of a tile; vf_sum4 reduces them together */

/* ---- vectors of any float type ---- */

INLINE vf
load(const void *p, size_t at, const m1b_dtype type)
{
	switch (type)
	{
		case M1B_BF16:
			return vf_load_bf16((const uint16_t *) p + at);
		case M1B_F16:
			return vf_load_f16((const uint16_t *) p + at);
		default:
			return vf_load((const float *) p + at);
	}
}

INLINE vf
load_n(const void *p, size_t at, const m1b_dtype type, int n)
{
	switch (type)
	{
		case M1B_BF16:
			return vf_load_bf16_n((const uint16_t *) p + at, n);
		case M1B_F16:
			return vf_load_f16_n((const uint16_t *) p + at, n);
		default:
			return vf_load_n((const float *) p + at, n);
	}
}

/* ---- dot: the matrix product against row-major weights ---- */

#define E4M3_BLOCK 128 /* numbers of F8_E4M3 after a scale */

/* Adds rows of x times weight rows [j, j + cols) of F8_E4M3, which are whole blocks. */
INLINE void
add_e4m3(const m1b_dot *p, const float *const x[VF_DOT_ROWS], int j, const int rows, const int cols,
		 vf acc[VF_DOT_ROWS][2 * DOT_COLS])
{
	const size_t block_bytes = sizeof(float) + E4M3_BLOCK;
	const size_t row_bytes = p->w_stride / E4M3_BLOCK * block_bytes;

	for (int k0 = 0; k0 < p->k; k0 += E4M3_BLOCK)
	{
		const uint8_t *numbers[2 * DOT_COLS];
		vf scale[2 * DOT_COLS];

		UNROLL
		for (int b = 0; b < cols; b++)
		{
			const uint8_t *block =
				(const uint8_t *) p->w + (size_t) (j + b) * row_bytes + (size_t) (k0 / E4M3_BLOCK) * block_bytes;
			float stored;

			memcpy(&stored, block, sizeof stored);
			scale[b] = vf_set(256.0f * stored);
			numbers[b] = block + sizeof stored;
		}
		for (int k = 0; k < E4M3_BLOCK; k += VF_WIDTH)
		{
			vf wv[2 * DOT_COLS];

			UNROLL
			for (int b = 0; b < cols; b++)
				wv[b] = vf_mul(scale[b], vf_load_e4m3(numbers[b] + k));
			UNROLL
			for (int a = 0; a < rows; a++)
			{
				vf xv = vf_load(x[a] + k0 + k);

				UNROLL
				for (int b = 0; b < cols; b++)
					acc[a][b] = vf_fma(xv, wv[b], acc[a][b]);
			}
		}
	}
}

/* Where weight number n lies from the first on; a block of F8_E4M3 begins with its scale. */
INLINE size_t
offset_of(size_t n, m1b_dtype type)
{
	if (type == M1B_F8_E4M3)
		return n / 128 * (128 + sizeof(float)) + n % 128;
	return n * (type == M1B_F32 ? sizeof(float) : sizeof(uint16_t));
}

/*
 * Asks for the part of the next cols weight rows that lies where column k does in these. Rows are too short for the
 * processor to notice by itself what comes next.
 */
INLINE void
prefetch_next(const m1b_dot *p, int j, int k, const int cols, const m1b_dtype type)
{
	const int lines = (int) (offset_of((size_t) (cols * VF_WIDTH), type) / 64);
	const size_t next = (size_t) (j + cols) * p->w_stride + (size_t) (k * cols);
	const char *at = (const char *) p->w + offset_of(next, type);

	UNROLL
	for (int i = 0; i < lines; i++)
		__builtin_prefetch(at + i * 64);
}

/*
 * rows x rows of x against cols weight rows. Each product has one vector
 * accumulator over k and one reduction, whatever the tile: the canonical order.
 */
INLINE void
dot_tile(const m1b_dot *p, int t, int j, const int rows, const int cols, const m1b_dtype type)
{
	vf acc[VF_DOT_ROWS][2 * DOT_COLS];
	const float *x[VF_DOT_ROWS];
	size_t w[2 * DOT_COLS];
	const int whole = type == M1B_F8_E4M3 ? 0 : p->k - p->k % VF_WIDTH;
	const int rest = p->k % VF_WIDTH; /* none with F8_E4M3 */

	UNROLL
	for (int a = 0; a < rows; a++)
	{
		x[a] = p->x[t + a];
		UNROLL
		for (int b = 0; b < cols; b++)
			acc[a][b] = vf_set(0.0f);
	}
	UNROLL
	for (int b = 0; b < cols; b++)
		w[b] = (size_t) (j + b) * p->w_stride;
	if (type == M1B_F8_E4M3)
		add_e4m3(p, x, j, rows, cols, acc);
	for (int k = 0; k < whole; k += VF_WIDTH)
	{
		vf wv[2 * DOT_COLS];

		if (t == 0)
			prefetch_next(p, j, k, cols, type);
		UNROLL
		for (int b = 0; b < cols; b++)
			wv[b] = load(p->w, w[b] + (size_t) k, type);
		UNROLL
		for (int a = 0; a < rows; a++)
		{
			vf xv = vf_load(x[a] + k);

			UNROLL
			for (int b = 0; b < cols; b++)
				acc[a][b] = vf_fma(xv, wv[b], acc[a][b]);
		}
	}
	if (rest != 0)
	{
		vf wv[2 * DOT_COLS];

		UNROLL
		for (int b = 0; b < cols; b++)
			wv[b] = load_n(p->w, w[b] + (size_t) whole, type, rest);
		UNROLL
		for (int a = 0; a < rows; a++)
		{
			vf xv = vf_load_n(x[a] + whole, rest);

			UNROLL
			for (int b = 0; b < cols; b++)
				acc[a][b] = vf_fma(xv, wv[b], acc[a][b]);
		}
	}
	UNROLL
	for (int a = 0; a < rows; a++)
	{
		float *out = p->out[t + a] + j;

		if (cols % DOT_COLS == 0)
			UNROLL
		for (int b = 0; b < cols; b += DOT_COLS)
			vf_sum4(acc[a][b], acc[a][b + 1], acc[a][b + 2], acc[a][b + 3], out + b);
		else UNROLL
		for (int b = 0; b < cols; b++)
			out[b] = vf_sum(acc[a][b]);
	}
}

/* All rows of x against weight rows [j, j + cols), in tiles of VF_DOT_ROWS. */
INLINE void
dot_columns(const m1b_dot *p, int j, const int cols, const m1b_dtype type)
{
	int t = 0;

	for (; t + VF_DOT_ROWS <= p->n; t += VF_DOT_ROWS)
		dot_tile(p, t, j, VF_DOT_ROWS, cols, type);
	switch (p->n - t)
	{
#if VF_DOT_ROWS > 2
		case 5:
			dot_tile(p, t, j, 5, cols, type);
			break;
		case 4:
			dot_tile(p, t, j, 4, cols, type);
			break;
		case 3:
			dot_tile(p, t, j, 3, cols, type);
			break;
		case 2:
			dot_tile(p, t, j, 2, cols, type);
			break;
#endif
		case 1:
			dot_tile(p, t, j, 1, cols, type);
			break;
		default:
			break;
	}
}

INLINE void
dot_typed(const m1b_dot *p, const m1b_dtype type)
{
	int j = p->row0;

	/* A single row has too few accumulators in a 4-wide tile to hide the latency of an FMA. */
	if (p->n == 1)
		for (; j + 2 * DOT_COLS <= p->row1; j += 2 * DOT_COLS)
			dot_tile(p, 0, j, 1, 2 * DOT_COLS, type);
	for (; j + DOT_COLS <= p->row1; j += DOT_COLS)
		dot_columns(p, j, DOT_COLS, type);
	for (; j < p->row1; j++)
		dot_columns(p, j, 1, type);
}

static void
dot(const m1b_dot *p)
{
	if (p->w_type == M1B_F32)
		dot_typed(p, M1B_F32);
	else if (p->w_type == M1B_F16)
		dot_typed(p, M1B_F16);
	else if (p->w_type == M1B_F8_E4M3)
		dot_typed(p, M1B_F8_E4M3);
	else
		dot_typed(p, M1B_BF16);
}

/* ---- mac: small products whose right side is read along its rows ---- */

/*
 * Asks for the part of the next b that lies where these vectors do. Each ends before the processor notices a pattern.
 */
INLINE void
prefetch_row(const void *next, size_t at, const int vecs, const m1b_dtype type)
{
	const char *row = (const char *) next + offset_of(at, type);

	for (size_t i = 0; i < offset_of((size_t) (vecs * VF_WIDTH), type); i += 64)
		__builtin_prefetch(row + i);
}

/* rows x (vecs vectors) of c; the last vector holds `last` elements (VF_WIDTH = all). */
INLINE void
mac_tile(const m1b_mac *p, int i, int j, const int rows, const int vecs, int last, const m1b_dtype type)
{
	vf acc[VF_MAC_TALL][VF_MAC_VECS];
	vf scale = vf_set(p->scale);
	const float *a = p->a + (size_t) i * p->a_row;
	size_t b = (size_t) j;

	UNROLL
	for (int r = 0; r < rows; r++)
	{
		float *c = p->c + (size_t) (i + r) * p->c_row + j;

		UNROLL
		for (int v = 0; v < vecs; v++)
		{
			const bool part = v == vecs - 1 && last != VF_WIDTH;

			if (p->scale == 0.0f)
				acc[r][v] = vf_set(0.0f);
			else
				acc[r][v] = vf_mul(scale, part ? vf_load_n(c + v * VF_WIDTH, last) : vf_load(c + v * VF_WIDTH));
		}
	}
	for (int k = 0; k < p->k; k++)
	{
		vf bv[VF_MAC_VECS];

		if (i == 0 && p->next != NULL)
			prefetch_row(p->next, b, vecs, type);
		UNROLL
		for (int v = 0; v < vecs; v++)
		{
			const bool part = v == vecs - 1 && last != VF_WIDTH;
			const size_t at = b + (size_t) (v * VF_WIDTH);

			bv[v] = part ? load_n(p->b, at, type, last) : load(p->b, at, type);
		}
		UNROLL
		for (int r = 0; r < rows; r++)
		{
			vf av = vf_set(a[(size_t) r * p->a_row]);

			UNROLL
			for (int v = 0; v < vecs; v++)
				acc[r][v] = vf_fma(av, bv[v], acc[r][v]);
		}
		a += p->a_col;
		b += p->b_row;
	}
	UNROLL
	for (int r = 0; r < rows; r++)
	{
		float *c = p->c + (size_t) (i + r) * p->c_row + j;

		UNROLL
		for (int v = 0; v < vecs; v++)
		{
			if (v == vecs - 1 && last != VF_WIDTH)
				vf_store_n(c + v * VF_WIDTH, acc[r][v], last);
			else
				vf_store(c + v * VF_WIDTH, acc[r][v]);
		}
	}
}

/* Narrow tiles are taller, because an FMA takes several cycles, and each row's number is loaded for few of them. */
INLINE void
mac_columns(const m1b_mac *p, int j, const int vecs, int last, const m1b_dtype type)
{
	const int rows = vecs == VF_MAC_VECS ? VF_MAC_ROWS : VF_MAC_TALL;
	int i = 0;

	for (; i + rows <= p->m; i += rows)
		mac_tile(p, i, j, rows, vecs, last, type);
	for (; i + 2 <= p->m; i += 2)
		mac_tile(p, i, j, 2, vecs, last, type);
	for (; i < p->m; i++)
		mac_tile(p, i, j, 1, vecs, last, type);
}

INLINE void
mac_typed(const m1b_mac *p, const m1b_dtype type)
{
	int j = 0;

	for (; j + VF_MAC_VECS * VF_WIDTH <= p->n; j += VF_MAC_VECS * VF_WIDTH)
		mac_columns(p, j, VF_MAC_VECS, VF_WIDTH, type);
#if VF_MAC_VECS > 2
	for (; j + 2 * VF_WIDTH <= p->n; j += 2 * VF_WIDTH)
		mac_columns(p, j, 2, VF_WIDTH, type);
#endif
	for (; j + VF_WIDTH <= p->n; j += VF_WIDTH)
		mac_columns(p, j, 1, VF_WIDTH, type);
	if (j < p->n)
		mac_columns(p, j, 1, p->n - j, type);
}

static void
mac(const m1b_mac *p)
{
	if (p->b_type == M1B_F32)
		mac_typed(p, M1B_F32);
	else
		mac_typed(p, M1B_BF16);
}

/* ---- lightning attention, one token ---- */

/* Columns [j, j + vecs vectors) of the state: read and written once. */
INLINE void
lightning_columns(float *s, const float *q, const float *k, const float *v, float decay, int head_dim, float *out,
				  int j, const int vecs, int last)
{
	vf value[4];
	vf sum[4];
	vf lambda = vf_set(decay);

	UNROLL
	for (int c = 0; c < vecs; c++)
	{
		value[c] = last == VF_WIDTH ? vf_load(v + j + c * VF_WIDTH) : vf_load_n(v + j, last);
		sum[c] = vf_set(0.0f);
	}
	for (int i = 0; i < head_dim; i++)
	{
		float *row = s + (size_t) i * (size_t) head_dim + j;
		vf key = vf_set(k[i]);
		vf query = vf_set(q[i]);

		UNROLL
		for (int c = 0; c < vecs; c++)
		{
			vf state = last == VF_WIDTH ? vf_load(row + c * VF_WIDTH) : vf_load_n(row, last);

			state = vf_fma(key, value[c], vf_mul(lambda, state));
			if (last == VF_WIDTH)
				vf_store(row + c * VF_WIDTH, state);
			else
				vf_store_n(row, state, last);
			sum[c] = vf_fma(query, state, sum[c]);
		}
	}
	UNROLL
	for (int c = 0; c < vecs; c++)
	{
		if (last == VF_WIDTH)
			vf_store(out + j + c * VF_WIDTH, sum[c]);
		else
			vf_store_n(out + j, sum[c], last);
	}
}

static void
lightning_step(float *s, const float *q, const float *k, const float *v, float decay, int head_dim, float *out)
{
	int j = 0;

	for (; j + 4 * VF_WIDTH <= head_dim; j += 4 * VF_WIDTH)
		lightning_columns(s, q, k, v, decay, head_dim, out, j, 4, VF_WIDTH);
	for (; j + VF_WIDTH <= head_dim; j += VF_WIDTH)
		lightning_columns(s, q, k, v, decay, head_dim, out, j, 1, VF_WIDTH);
	if (j < head_dim)
		lightning_columns(s, q, k, v, decay, head_dim, out, j, 1, head_dim - j);
}

/* ---- rows ---- */

static void
rms_norm(const float *x, const float *weight, float eps, int n, float *out)
{
	vf sum = vf_set(0.0f);

	EACH_VECTOR(n, {
		vf v = LOAD(x);
		sum = vf_fma(v, v, sum);
	});

	vf factor = vf_set(1.0f / sqrtf(vf_sum(sum) / (float) n + eps));

	EACH_VECTOR(n, { STORE(out, vf_mul(vf_mul(LOAD(x), factor), LOAD(weight))); });
}

static void
scale_add(float *out, const float *x, const float *y, float alpha, float beta, int n)
{
	vf a = vf_set(alpha);
	vf b = vf_set(beta);

	EACH_VECTOR(n, { STORE(out, vf_fma(a, LOAD(x), vf_mul(b, LOAD(y)))); });
}

static void
silu(float *x, int n)
{
	EACH_VECTOR(n, {
		vf v = LOAD(x);
		STORE(x, vf_mul(v, vf_sigmoid(v)));
	});
}

static void
silu_mul(float *x, const float *y, int n)
{
	EACH_VECTOR(n, {
		vf v = LOAD(x);
		STORE(x, vf_mul(vf_mul(v, vf_sigmoid(v)), LOAD(y)));
	});
}

static void
sigmoid_mul(float *x, const float *y, int n)
{
	EACH_VECTOR(n, { STORE(x, vf_mul(LOAD(x), vf_sigmoid(LOAD(y)))); });
}

static void
scale(float *x, float factor, int n)
{
	vf f = vf_set(factor);

	EACH_VECTOR(n, { STORE(x, vf_mul(LOAD(x), f)); });
}

static float
exp_sum(float *x, float max, int n)
{
	vf m = vf_set(max);
	vf sum = vf_set(0.0f);
	float tail = 0.0f;

	EACH_VECTOR(n, {
		vf e = vf_exp(vf_sub(LOAD(x), m));
		STORE(x, e);
		if (part)
			for (int t = 0; t < left; t++)
				tail += x[i + t];
		else
			sum = vf_add(sum, e);
	});
	return vf_sum(sum) + tail;
}

static float
max(const float *x, int n)
{
	vf m = vf_set(-INFINITY);
	float tail = -INFINITY;

	EACH_VECTOR(n, {
		if (part)
			for (int t = 0; t < left; t++)
				tail = x[i + t] > tail ? x[i + t] : tail;
		else
			m = vf_max(m, vf_load(x + i));
	});
	return fmaxf(vf_hmax(m), tail);
}

const m1b_kernels M1B_TABLE(m1b_kernels) = {
	.name = VF_NAME,
	.dot = dot,
	.mac = mac,
	.lightning_step = lightning_step,
	.rms_norm = rms_norm,
	.scale_add = scale_add,
	.silu = silu,
	.silu_mul = silu_mul,
	.sigmoid_mul = sigmoid_mul,
	.scale = scale,
	.exp_sum = exp_sum,
	.max = max,
	.packed = &M1B_TABLE(m1b_qkernels),
	.learning = &M1B_TABLE(m1b_lkernels),
};
