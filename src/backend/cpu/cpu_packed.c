/* cpu_packed.c - see cpu_packed.h: laying out stored blocks as panels. */
#include "backend/cpu/cpu_packed.h"

#include <string.h>

#include "blocks/blocks.h"

#define SUPER 256 /* columns of a block of the K formats */

static size_t
lines(size_t bytes)
{
	return (bytes + M1B_LINE - 1) / M1B_LINE * M1B_LINE;
}

m1b_panel
m1b_panel_of(m1b_dtype type, int cols)
{
	const size_t rows = M1B_PANEL_ROWS;
	const size_t groups = (size_t) cols / M1B_GROUP;
	const size_t blocks = (size_t) cols / (size_t) m1b_block_weights(type);
	const bool k = m1b_block_weights(type) == SUPER;
	const bool has_mins = type == M1B_Q4_K || type == M1B_Q5_K;
	const size_t scales = lines(blocks * rows * 2);
	const size_t group_scales = lines((type == M1B_Q6_K ? 2 * groups : groups) * rows);
	const size_t high_lines = type == M1B_Q5_K ? 1 : type == M1B_Q6_K ? 2 : 0;
	m1b_panel p;

	p.scales = 0;
	p.mins = p.scales + scales;
	p.group_scales = p.mins + (has_mins ? scales : 0);
	p.group_mins = p.group_scales + (k ? group_scales : 0);
	p.quants = p.group_mins + (has_mins ? group_scales : 0);
	p.high = p.quants + groups * (type == M1B_Q8_0 ? 8 : 4) * M1B_LINE;
	p.bytes = p.high + groups * high_lines * M1B_LINE;
	return p;
}

/* Four bytes of a group as one number. */
static uint32_t
four_at(const uint8_t *values)
{
	uint32_t four;

	memcpy(&four, values, sizeof four);
	return four;
}

static void
store_four(uint8_t *line, int row, uint32_t four)
{
	memcpy(line + row * 4, &four, sizeof four);
}

static void
pack_q8_0(const m1b_panel *at, const uint8_t *from, int cols, int row, uint8_t *to)
{
	for (int b = 0; b < cols / 32; b++, from += 34)
	{
		uint8_t *line = to + at->quants + (size_t) b * 8 * M1B_LINE;

		memcpy(to + at->scales + ((size_t) b * M1B_PANEL_ROWS + (size_t) row) * 2, from, 2);
		for (int i = 0; i < 8; i++)
			store_four(line + i * M1B_LINE, row,
					   four_at(from + 2 + 4 * i) ^ 0x80808080u); /* the signed byte plus 128 */
	}
}

/* Stores the low four bits of a group's 32 values. */
static void
pack_nibbles(const uint8_t values[32], int row, uint8_t *lines_of_group)
{
	for (int i = 0; i < 4; i++)
	{
		const uint32_t low = four_at(values + 8 * i) & 0x0f0f0f0fu;
		const uint32_t high = four_at(values + 8 * i + 4) & 0x0f0f0f0fu;

		store_four(lines_of_group + i * M1B_LINE, row, low | high << 4);
	}
}

/* 32 columns in sixteen bytes: column i in the low half of byte i, column i + 16 in the high half. */
static void
pack_q4_0(const m1b_panel *at, const uint8_t *from, int cols, int row, uint8_t *to)
{
	for (int b = 0; b < cols / 32; b++, from += 18)
	{
		uint8_t values[32];

		memcpy(to + at->scales + ((size_t) b * M1B_PANEL_ROWS + (size_t) row) * 2, from, 2);
		for (int i = 0; i < 16; i++)
		{
			values[i] = from[2 + i] & 15;
			values[i + 16] = from[2 + i] >> 4;
		}
		pack_nibbles(values, row, to + at->quants + (size_t) b * 4 * M1B_LINE);
	}
}

/* The values of a superblock as stored, without scales: up to 6 bits each. */
static void
k_values(m1b_dtype type, const uint8_t *block, uint8_t values[SUPER])
{
	const uint8_t *nibbles = block + (type == M1B_Q5_K ? 48 : 16);

	if (type == M1B_Q6_K)
	{
		m1b_q6_k_values(block, values);
		return;
	}
	for (int g = 0; g < 8; g++)
		for (int i = 0; i < 32; i++)
		{
			values[g * 32 + i] = nibbles[g / 2 * 32 + i] >> g % 2 * 4 & 15;
			if (type == M1B_Q5_K)
				values[g * 32 + i] |= (uint8_t) ((block[16 + i] >> g & 1) << 4);
		}
}

static void
pack_k_scales(m1b_dtype type, const m1b_panel *at, const uint8_t *block, int b, int row, uint8_t *to)
{
	const size_t r = (size_t) row;
	uint8_t scales[8];
	uint8_t mins[8];

	if (type == M1B_Q6_K)
	{
		memcpy(to + at->scales + ((size_t) b * M1B_PANEL_ROWS + r) * 2, block + 208, 2);
		for (int g = 0; g < 16; g++)
			to[at->group_scales + (size_t) (b * 16 + g) * M1B_PANEL_ROWS + r] = block[192 + g];
		return;
	}
	memcpy(to + at->scales + ((size_t) b * M1B_PANEL_ROWS + r) * 2, block, 2);
	memcpy(to + at->mins + ((size_t) b * M1B_PANEL_ROWS + r) * 2, block + 2, 2);
	m1b_k_scales(block + 4, scales, mins);
	for (int g = 0; g < 8; g++)
	{
		to[at->group_scales + (size_t) (b * 8 + g) * M1B_PANEL_ROWS + r] = scales[g];
		to[at->group_mins + (size_t) (b * 8 + g) * M1B_PANEL_ROWS + r] = mins[g];
	}
}

/* What nibbles do not hold of a group's values: a bit for Q5_K, two for Q6_K. */
static void
pack_high(m1b_dtype type, const uint8_t values[32], int row, uint8_t *lines_of_group)
{
	const int bits = type == M1B_Q5_K ? 1 : 2;
	const int per_line = 8 / bits;

	for (int line = 0; line < bits; line++)
	{
		uint32_t high = 0;

		for (int i = 0; i < per_line; i++)
			high |= (four_at(values + (line * per_line + i) * 4) >> 4 & 0x0f0f0f0fu) << i * bits;
		store_four(lines_of_group + line * M1B_LINE, row, high);
	}
}

static void
pack_k(m1b_dtype type, const m1b_panel *at, const uint8_t *from, int cols, int row, uint8_t *to)
{
	const size_t high_lines = type == M1B_Q5_K ? 1 : 2;

	for (int b = 0; b < cols / SUPER; b++, from += m1b_block_bytes(type))
	{
		uint8_t values[SUPER];

		pack_k_scales(type, at, from, b, row, to);
		k_values(type, from, values);
		for (int g = 0; g < 8; g++)
		{
			const size_t group = (size_t) (b * 8 + g);

			pack_nibbles(values + g * 32, row, to + at->quants + group * 4 * M1B_LINE);
			if (type != M1B_Q4_K)
				pack_high(type, values + g * 32, row, to + at->high + group * high_lines * M1B_LINE);
		}
	}
}

void
m1b_pack_panel(m1b_dtype type, const void *stored, int rows, int cols, int panel, uint8_t *to)
{
	const m1b_panel at = m1b_panel_of(type, cols);
	const size_t row_bytes = m1b_bytes(type, (size_t) cols);
	const int first = panel * M1B_PANEL_ROWS;

	memset(to, 0, at.bytes);
	for (int row = 0; row < M1B_PANEL_ROWS && first + row < rows; row++)
	{
		const uint8_t *from = (const uint8_t *) stored + (size_t) (first + row) * row_bytes;

		if (type == M1B_Q8_0)
			pack_q8_0(&at, from, cols, row, to);
		else if (type == M1B_Q4_0)
			pack_q4_0(&at, from, cols, row, to);
		else
			pack_k(type, &at, from, cols, row, to);
	}
}
