/*
 * cpu_packed.h - how the CPU backend keeps matrices of small integers and multiplies them.
 *
 * A matrix is cut into panels of 16 rows. Inside a panel, the four bytes that belong
 * to four neighbouring columns of one row stand side by side, 16 rows to a 64-byte
 * line: one integer multiply-add instruction takes four columns of as many rows as it
 * has lanes, and what it adds up is never summed across lanes. A panel is as large as
 * its 16 rows are in the stored format, but for the 6-bit scales of Q4_K and Q5_K,
 * which take a byte each.
 *
 * The other side of a product is quantized to 8 bits when it is used: 32 columns
 * share a scale. F8_E4M3 is not packed: it is widened to floats, like F16.
 *
 * Regions of a panel, one after the other; line = 64 bytes, [row] = 16 rows:
 *   scales  f16 [block][row]      block = 32 columns (Q8_0, Q4_0) or 256 (the K formats)
 *   mins    f16 [block][row]      Q4_K, Q5_K
 *   group_scales u8 [group][row]  the K formats; group = 32 columns, 16 for Q6_K (signed)
 *   group_mins   u8 [group][row]  Q4_K, Q5_K
 *   quants  line [32 columns][8] of bytes (Q8_0, plus 128), or [4] of nibbles: line i
 *           holds columns 8i .. 8i+3 in its low halves and 8i+4 .. 8i+7 in its high ones
 *   high    Q5_K: line [32 columns], bit i of a byte belongs to columns 4i .. 4i+3;
 *           Q6_K: line [32 columns][2], bit pair i of line j to columns 16j+4i .. 16j+4i+3
 */
#ifndef M1_BACKEND_CPU_CPU_PACKED_H
#define M1_BACKEND_CPU_CPU_PACKED_H

#include "backend/backend.h"

#define M1B_PANEL_ROWS 16
#define M1B_GROUP 32 /* columns that share a scale in the quantized input */
#define M1B_LINE 64

/* Where the regions of a panel begin, in bytes; all are multiples of a line. */
typedef struct m1b_panel
{
	size_t scales;
	size_t mins;
	size_t group_scales;
	size_t group_mins;
	size_t quants;
	size_t high;
	size_t bytes; /* of a panel */
} m1b_panel;

m1b_panel m1b_panel_of(m1b_dtype type, int cols);

/* Packs rows [16 * panel, + 16) of a stored matrix of `rows` rows; rows beyond the last become zeros. */
void m1b_pack_panel(m1b_dtype type, const void *stored, int rows, int cols, int panel, uint8_t *to);

/*
 * A quantized input row of n columns (a multiple of 32), in one block of memory:
 * int8 [n], then float scale [n/32], float minus_sum [n/32] (minus the scaled sum of the group's values),
 * int32 minus_sum32 [n/32] and int32 minus_sum16 [n/16] (minus the sums of the integers).
 */
typedef struct m1b_qrow
{
	int8_t *q;
	float *scale;
	float *minus_sum;
	int32_t *minus_sum32;
	int32_t *minus_sum16;
} m1b_qrow;

static inline size_t
m1b_qrow_bytes(int n)
{
	const size_t groups = (size_t) n / M1B_GROUP;

	return ((size_t) n + groups * 20 + M1B_LINE - 1) / M1B_LINE * M1B_LINE;
}

static inline m1b_qrow
m1b_qrow_at(void *row, int n)
{
	const size_t groups = (size_t) n / M1B_GROUP;
	m1b_qrow at;

	at.q = row;
	at.scale = (float *) (void *) (at.q + n);
	at.minus_sum = at.scale + groups;
	at.minus_sum32 = (int32_t *) (void *) (at.minus_sum + groups);
	at.minus_sum16 = at.minus_sum32 + groups;
	return at;
}

#endif
