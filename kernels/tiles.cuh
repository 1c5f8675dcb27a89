/*
 * tiles.cuh - tiles of bf16 in shared memory, laid out for matrix loads without bank
 * conflicts, and the operand fragments of m1k_mma in them.
 *
 * A tile is a number of rows of Chunks 16-byte pieces; within a row, pieces are
 * permuted by the row number.
 */
#ifndef M1K_TILES_CUH
#define M1K_TILES_CUH

#include "device.cuh"

template <int Chunks>
__device__ __forceinline__ uint16_t *
m1k_piece(uint16_t *tile, int row, int chunk)
{
	return tile + (row * Chunks + (chunk ^ row % 8)) * 8;
}

/* Left operand, 16 x 16: rows row0 ..., columns chunk0 * 8 ... of the tile. */
template <int Chunks>
__device__ __forceinline__ void
m1k_left(uint32_t (&a)[4], uint16_t *tile, int row0, int chunk0)
{
	const int lane = threadIdx.x % M1K_WARP;

	m1k_load_matrices(a, m1k_piece<Chunks>(tile, row0 + lane % 16, chunk0 + lane / 16));
}

/* Left operand whose rows are the tile's columns chunk0 * 8 ... and whose columns are the tile's rows row0 ... */
template <int Chunks>
__device__ __forceinline__ void
m1k_left_transposed(uint32_t (&a)[4], uint16_t *tile, int row0, int chunk0)
{
	const int lane = threadIdx.x % M1K_WARP;

	m1k_load_matrices_transposed(a, m1k_piece<Chunks>(tile, row0 + lane / 16 * 8 + lane % 8, chunk0 + lane / 8 % 2));
}

/*
 * Two right operands, 16 x 8 each, side by side. Here each tile row is a column of the operand: rows row0 ... row0 + 15
 * are the 16 columns, and the sum runs along the row from chunk0 * 8.
 */
template <int Chunks>
__device__ __forceinline__ void
m1k_right(uint32_t (&b)[4], uint16_t *tile, int row0, int chunk0)
{
	const int lane = threadIdx.x % M1K_WARP;

	m1k_load_matrices(b, m1k_piece<Chunks>(tile, row0 + lane / 16 * 8 + lane % 8, chunk0 + lane / 8 % 2));
}

/*
 * The same where the sum runs along the tile's rows from row0, and the operand's 16 columns are those from chunk0 * 8.
 */
template <int Chunks>
__device__ __forceinline__ void
m1k_right_transposed(uint32_t (&b)[4], uint16_t *tile, int row0, int chunk0)
{
	const int lane = threadIdx.x % M1K_WARP;

	m1k_load_matrices_transposed(b, m1k_piece<Chunks>(tile, row0 + lane % 16, chunk0 + lane / 16));
}

#endif
