/*
 * cpu_qkernels.c - products with packed quantized weights, and these weights as floats, for gradients;
 * see cpu_packed.h for the layout. Compiled once per instruction set like cpu_kernels.c.
 *
 * A tile is some input rows against as many weight rows as a vector has lanes (VF_WIDTH
 * of a panel's 16). For each 32 columns the weights are unpacked once and multiplied
 * with every input row of the tile in integers; the sum is scaled and added in fp32.
 * An output element is accumulated group by group in one vector lane, in the same order
 * in every tile.
 */
#include <string.h>

#include "backend/cpu/cpu_isa.h"
#include "backend/cpu/cpu_kernels.h"
#include "backend/cpu/cpu_packed.h"

#define FOURS 8 /* runs of four columns in a group */

/* One panel, seen from the lanes that begin at row `lane`. */
typedef struct panel_view
{
	m1b_panel at;
	const uint8_t *base;
	int lane;
} panel_view;

INLINE const uint8_t *
line_at(const panel_view *v, size_t region, size_t line)
{
	return v->base + region + line * M1B_LINE + (size_t) v->lane * 4;
}

INLINE vf
half_scales(const panel_view *v, size_t region, int block)
{
	return vf_load_f16((const uint16_t *) (const void *) (v->base + region) + block * M1B_PANEL_ROWS + v->lane);
}

INLINE const uint8_t *
group_bytes(const panel_view *v, size_t region, int group)
{
	return v->base + region + (size_t) group * M1B_PANEL_ROWS + v->lane;
}

/* Unpacks the weights of a group as unsigned bytes. */
INLINE void
unpack(const panel_view *v, int group, vi w[FOURS], const m1b_dtype type)
{
	const vi nibble = vi_bytes(15);

	if (type == M1B_Q8_0)
	{
		UNROLL
		for (int i = 0; i < FOURS; i++)
			w[i] = vi_load(line_at(v, v->at.quants, (size_t) group * FOURS + (size_t) i));
		return;
	}
	UNROLL
	for (int i = 0; i < FOURS / 2; i++)
	{
		vi both = vi_load(line_at(v, v->at.quants, (size_t) group * 4 + (size_t) i));

		w[2 * i] = vi_and(both, nibble);
		w[2 * i + 1] = vi_and(vi_shift_right(both, 4), nibble);
	}
	if (type == M1B_Q5_K)
	{
		vi bits = vi_load(line_at(v, v->at.high, (size_t) group));

		UNROLL
		for (int i = 0; i < FOURS; i++)
			w[i] = vi_or(w[i], vi_and(i < 4 ? vi_shift_left(bits, 4 - i) : vi_shift_right(bits, i - 4), vi_bytes(16)));
	}
	if (type == M1B_Q6_K)
	{
		vi bits[2];

		bits[0] = vi_load(line_at(v, v->at.high, (size_t) group * 2));
		bits[1] = vi_load(line_at(v, v->at.high, (size_t) group * 2 + 1));
		UNROLL
		for (int i = 0; i < FOURS; i++)
		{
			const int at = i % 4 * 2;

			w[i] = vi_or(w[i], vi_and(at < 4 ? vi_shift_left(bits[i / 4], 4 - at) : vi_shift_right(bits[i / 4], at - 4),
									  vi_bytes(48)));
		}
	}
}

/*
 * Asks for the part of the next panel that lies where this group does in its own, and a little more. A panel is several
 * streams, too short for the processor to notice what comes next.
 */
INLINE void
prefetch_next(const panel_view *v, int group, const m1b_dtype type)
{
	const int lines = type == M1B_Q8_0	 ? 9
					  : type == M1B_Q6_K ? 7
					  : type == M1B_Q5_K ? 6
										 : 5; /* of a group, scales and all */
	const uint8_t *at = v->base + v->at.bytes + (size_t) (group * lines) * M1B_LINE;

	UNROLL
	for (int i = 0; i < lines; i++)
		__builtin_prefetch(at + i * M1B_LINE);
}

/* What a block of a panel scales its weights by: 32 columns, or the 256 of the K formats. */
typedef struct block_scales
{
	vf scale;
	vf min; /* Q4_K, Q5_K */
} block_scales;

INLINE block_scales
scales_of(const panel_view *v, int block, const m1b_dtype type)
{
	block_scales s;

	s.scale = half_scales(v, v->at.scales, block);
	s.min = type == M1B_Q4_K || type == M1B_Q5_K ? half_scales(v, v->at.mins, block) : s.scale;
	return s;
}

/* Adds one group of a Q6_K panel: two halves of 16 columns with a scale each; weights stand for 32 less. */
INLINE void
add_q6_k(const panel_view *v, const block_scales *block, int group, const vi w[FOURS], const m1b_qrow x[],
		 const int rows, vf acc[])
{
	vf scale[2];

	scale[0] = vf_mul(block->scale, vf_load_i8((const int8_t *) group_bytes(v, v->at.group_scales, 2 * group)));
	scale[1] = vf_mul(block->scale, vf_load_i8((const int8_t *) group_bytes(v, v->at.group_scales, 2 * group + 1)));
	UNROLL
	for (int a = 0; a < rows; a++)
	{
		const int8_t *q = x[a].q + group * M1B_GROUP;
		vf sum = vf_set(0.0f);

		UNROLL
		for (int half = 0; half < 2; half++)
		{
			vi dot = vi_shift_left32(vi_set(x[a].minus_sum16[2 * group + half]), 5);

			UNROLL
			for (int i = 0; i < FOURS / 2; i++)
				dot = vi_dot(dot, w[half * 4 + i], q + (half * 4 + i) * 4, false);
			sum = vf_fma(vi_to_vf(dot), scale[half], sum);
		}
		acc[a] = vf_fma(sum, vf_set(x[a].scale[group]), acc[a]);
	}
}

/* Adds one group of the other formats: one scale; weights stand for 128 (Q8_0) or 8 (Q4_0) less, or for a minimum. */
INLINE void
add_group(const panel_view *v, const block_scales *block, int group, const vi w[FOURS], const m1b_qrow x[],
		  const int rows, vf acc[], const m1b_dtype type)
{
	const bool has_min = type == M1B_Q4_K || type == M1B_Q5_K;
	vf scale = block->scale;
	vf min = block->min;

	if (has_min)
	{
		scale = vf_mul(scale, vf_load_u8(group_bytes(v, v->at.group_scales, group)));
		min = vf_mul(min, vf_load_u8(group_bytes(v, v->at.group_mins, group)));
	}
	UNROLL
	for (int a = 0; a < rows; a++)
	{
		const int8_t *q = x[a].q + group * M1B_GROUP;
		vi dot = vi_set(has_min ? 0 : x[a].minus_sum32[group]);

		if (!has_min)
			dot = vi_shift_left32(dot, type == M1B_Q8_0 ? 7 : 3);
		UNROLL
		for (int i = 0; i < FOURS; i++)
			dot = vi_dot(dot, w[i], q + 4 * i, type == M1B_Q8_0);
		acc[a] = vf_fma(vi_to_vf(dot), vf_mul(scale, vf_set(x[a].scale[group])), acc[a]);
		if (has_min)
			acc[a] = vf_fma(min, vf_set(x[a].minus_sum[group]), acc[a]);
	}
}

/* `rows` input rows from t on against the lanes of one view; `left` weight rows are there. */
INLINE void
tile(const m1b_qdot *p, const panel_view *v, int t, const int rows, int row, int left, const m1b_dtype type)
{
	const int groups = type == M1B_Q8_0 || type == M1B_Q4_0 ? 1 : 8; /* of a block */
	vf acc[VF_QDOT_ROWS];
	m1b_qrow x[VF_QDOT_ROWS];

	UNROLL
	for (int a = 0; a < rows; a++)
	{
		x[a] = m1b_qrow_at(p->x[t + a], p->k);
		acc[a] = vf_set(0.0f);
	}
	for (int block = 0; block < p->k / (M1B_GROUP * groups); block++)
	{
		const block_scales scales = scales_of(v, block, type);

		for (int group = block * groups; group < (block + 1) * groups; group++)
		{
			vi w[FOURS];

			if (t == 0)
				prefetch_next(v, group, type);
			unpack(v, group, w, type);
			if (type == M1B_Q6_K)
				add_q6_k(v, &scales, group, w, x, rows, acc);
			else
				add_group(v, &scales, group, w, x, rows, acc, type);
		}
	}
	UNROLL
	for (int a = 0; a < rows; a++)
	{
		if (left >= VF_WIDTH)
			vf_store(p->out[t + a] + row, acc[a]);
		else
			vf_store_n(p->out[t + a] + row, acc[a], left);
	}
}

INLINE void
qdot_typed(const m1b_qdot *p, const m1b_dtype type)
{
	panel_view v = {.at = m1b_panel_of(type, p->k)};

	for (int row = p->row0; row < p->row1; row += VF_WIDTH)
	{
		const int left = p->row1 - row;
		int t = 0;

		v.base = (const uint8_t *) p->w + (size_t) (row / M1B_PANEL_ROWS) * v.at.bytes;
		v.lane = row % M1B_PANEL_ROWS;
		for (; t + VF_QDOT_ROWS <= p->n; t += VF_QDOT_ROWS)
			tile(p, &v, t, VF_QDOT_ROWS, row, left, type);
		for (; t + 2 <= p->n; t += 2)
			tile(p, &v, t, 2, row, left, type);
		if (t < p->n)
			tile(p, &v, t, 1, row, left, type);
	}
}

static void
qdot(const m1b_qdot *p)
{
	switch (p->type)
	{
		case M1B_Q8_0:
			qdot_typed(p, M1B_Q8_0);
			break;
		case M1B_Q4_0:
			qdot_typed(p, M1B_Q4_0);
			break;
		case M1B_Q4_K:
			qdot_typed(p, M1B_Q4_K);
			break;
		case M1B_Q5_K:
			qdot_typed(p, M1B_Q5_K);
			break;
		default:
			qdot_typed(p, M1B_Q6_K);
			break;
	}
}

/* ---- quantizing the input ---- */

INLINE void
sum_group(const int8_t *q, m1b_qrow *row, int group)
{
	int32_t sums[2] = {0, 0};

	for (int i = 0; i < M1B_GROUP / 2; i++)
	{
		sums[0] -= q[i];
		sums[1] -= q[i + M1B_GROUP / 2];
	}
	row->minus_sum16[2 * group] = sums[0];
	row->minus_sum16[2 * group + 1] = sums[1];
	row->minus_sum32[group] = sums[0] + sums[1];
	row->minus_sum[group] = row->scale[group] * (float) row->minus_sum32[group];
}

static void
quantize(const float *x, int n, void *to)
{
	m1b_qrow row = m1b_qrow_at(to, n);

	for (int g = 0; g < n / M1B_GROUP; g++)
	{
		const float *from = x + g * M1B_GROUP;
		int8_t *q = row.q + g * M1B_GROUP;
		vf most = vf_set(0.0f);
		float largest;
		float inverse;

		UNROLL
		for (int i = 0; i < M1B_GROUP; i += VF_WIDTH)
			most = vf_max(vf_abs(vf_load(from + i)), most);
		largest = vf_hmax(most);
		row.scale[g] = largest / 127.0f;
		/* a group of zeros, or of numbers too small to have an inverse, is zero */
		inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
		UNROLL
		for (int i = 0; i < M1B_GROUP; i += VF_WIDTH)
			vf_store_i8(q + i, vf_mul(vf_load(from + i), vf_set(inverse)));
		sum_group(q, &row, g);
	}
}

/* What `row` left over, at 1/254 of its scales: both rows together have 15 bits. */
static void
quantize_rest(const float *x, int n, const void *of, void *to)
{
	const m1b_qrow first = m1b_qrow_at((void *) (uintptr_t) of, n);
	m1b_qrow row = m1b_qrow_at(to, n);

	for (int g = 0; g < n / M1B_GROUP; g++)
	{
		const float scale = first.scale[g];
		const float inverse = scale > 1e-30f ? 254.0f / scale : 0.0f;
		int8_t *q = row.q + g * M1B_GROUP;
		float rest[M1B_GROUP];

		row.scale[g] = scale / 254.0f;
		for (int i = 0; i < M1B_GROUP; i++)
			rest[i] = (x[g * M1B_GROUP + i] - scale * (float) first.q[g * M1B_GROUP + i]) * inverse;
		UNROLL
		for (int i = 0; i < M1B_GROUP; i += VF_WIDTH)
			vf_store_i8(q + i, vf_load(rest + i));
		sum_group(q, &row, g);
	}
}

/* ---- weights as floats ---- */

/* The numbers of a group of all rows of a panel, those of a row side by side. */
INLINE void
rows_of_group(const panel_view *panel, int group, uint32_t rows[M1B_PANEL_ROWS][FOURS], const m1b_dtype type)
{
	for (int lane = 0; lane < M1B_PANEL_ROWS; lane += VF_WIDTH)
	{
		const panel_view v = {.at = panel->at, .base = panel->base, .lane = lane};
		uint32_t fours[FOURS][VF_WIDTH];
		vi w[FOURS];

		unpack(&v, group, w, type);
		memcpy(fours, w, sizeof fours);
		for (int r = 0; r < VF_WIDTH; r++)
			for (int i = 0; i < FOURS; i++)
				rows[lane + r][i] = fours[i][r];
	}
}

/* What the numbers of one row in a group are scaled by, of either half, and what is taken off then. */
typedef struct row_scale
{
	float half[2];
	float min;
} row_scale;

INLINE row_scale
scale_of_row(const panel_view *v, int group, int row, const float *scales, const float *mins, const m1b_dtype type)
{
	const float scale = scales[row];

	if (type == M1B_Q6_K)
	{
		const int8_t *factor = (const int8_t *) group_bytes(v, v->at.group_scales, 2 * group) + row;

		return (row_scale){{scale * (float) factor[0], scale * (float) factor[M1B_PANEL_ROWS]}, 0.0f};
	}
	if (type == M1B_Q4_K || type == M1B_Q5_K)
	{
		const float factor = scale * (float) group_bytes(v, v->at.group_scales, group)[row];

		return (row_scale){{factor, factor}, mins[row] * (float) group_bytes(v, v->at.group_mins, group)[row]};
	}
	return (row_scale){{scale, scale}, 0.0f};
}

/* Scales of f16 of all rows of a panel as floats. */
INLINE void
store_halves(const panel_view *panel, size_t region, int block, float to[M1B_PANEL_ROWS])
{
	for (int lane = 0; lane < M1B_PANEL_ROWS; lane += VF_WIDTH)
	{
		const panel_view v = {.at = panel->at, .base = panel->base, .lane = lane};

		vf_store(to + lane, half_scales(&v, region, block));
	}
}

INLINE void
widen_typed(const m1b_widen *p, const m1b_dtype type)
{
	const panel_view v = {.at = m1b_panel_of(type, p->cols), .base = p->panel};
	const float zero = type == M1B_Q8_0 ? 128 : type == M1B_Q4_0 ? 8 : type == M1B_Q6_K ? 32 : 0;
	const int block = p->group * M1B_GROUP / m1b_block_weights(type);
	uint32_t rows[M1B_PANEL_ROWS][FOURS];
	float scales[M1B_PANEL_ROWS];
	float mins[M1B_PANEL_ROWS];

	rows_of_group(&v, p->group, rows, type);
	store_halves(&v, v.at.scales, block, scales);
	if (type == M1B_Q4_K || type == M1B_Q5_K)
		store_halves(&v, v.at.mins, block, mins);
	for (int r = 0; r < M1B_PANEL_ROWS; r++)
	{
		const uint8_t *numbers = (const uint8_t *) rows[r];
		const row_scale scale = scale_of_row(&v, p->group, r, scales, mins, type);
		float *to = p->to + (size_t) r * p->to_row;

		UNROLL
		for (int i = 0; i < M1B_GROUP; i += VF_WIDTH)
		{
			const vf number = vf_sub(vf_load_u8(numbers + i), vf_set(zero));

			vf_store(to + i, vf_fma(vf_set(scale.half[i / 16]), number, vf_set(-scale.min)));
		}
	}
}

static void
widen(const m1b_widen *p)
{
	if (p->type == M1B_Q8_0)
		widen_typed(p, M1B_Q8_0);
	else if (p->type == M1B_Q4_0)
		widen_typed(p, M1B_Q4_0);
	else if (p->type == M1B_Q4_K)
		widen_typed(p, M1B_Q4_K);
	else if (p->type == M1B_Q5_K)
		widen_typed(p, M1B_Q5_K);
	else
		widen_typed(p, M1B_Q6_K);
}

const m1b_qkernels M1B_TABLE(m1b_qkernels) = {
	.qdot = qdot,
	.widen = widen,
	.quantize = quantize,
	.quantize_rest = quantize_rest,
};
