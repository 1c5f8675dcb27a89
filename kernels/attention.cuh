/*
 * attention.cuh - what the kernels of softmax attention share: where K and V lie, and
 * how the keys of a decoding token are divided.
 *
 * A decoding token is alone with its keys: for enough to be read at once, ranges of its
 * pages work side by side and are merged afterwards. They follow from its position alone,
 * so that it is computed alike whatever else is in the batch.
 */
#ifndef M1K_ATTENTION_CUH
#define M1K_ATTENTION_CUH

#include "device.cuh"

#define PAGE M1K_PAGE_TOKENS
#define LOG2_E 1.44269504f	 /* scores are powers of two, which the device has an instruction for */
#define PARTIAL(d) ((d) + 2) /* floats of a merged range: maximum, sum, then sums of V */

/* K (which = 0) or V (which = 1) of one kv head in one page: [PAGE, D] */
template <typename KV>
__device__ __forceinline__ KV *
page_of(const m1k_attention &p, int state, int page, int which, int kv_head)
{
	char *at = p.pages +
			   static_cast<size_t>(p.table[static_cast<size_t>(state) * p.table_stride + page]) * p.page_bytes +
			   p.slot_bytes;

	return reinterpret_cast<KV *>(at) + static_cast<size_t>(which * p.kv_heads + kv_head) * PAGE * p.head_dim;
}

__device__ __forceinline__ int
pages_for(int n_keys)
{
	return (n_keys + PAGE - 1) / PAGE;
}

/* Pages of each range, but for the last, which may have fewer. */
__device__ __forceinline__ int
range_pages(const m1k_attention &p, int n_pages)
{
	const int even = (n_pages + p.splits - 1) / p.splits;

	return even > M1K_RANGE_PAGES ? even : M1K_RANGE_PAGES;
}

/* Where range `split` of one query head of a decoding token puts its sums: of each block (segment, head, range). */
__device__ __forceinline__ float *
partial_of(const m1k_attention &p, int segment, int head, int split)
{
	return p.partial + ((static_cast<size_t>(segment) * p.heads + head) * p.splits + split) * PARTIAL(p.head_dim);
}

/* attention_tiles.cu: segments of several tokens, and of one; only where pages are bf16 and the head size is 128 */
void m1k_attend_tiles(const m1k_attention *p, cudaStream_t stream);
void m1k_attend_steps(const m1k_attention *p, cudaStream_t stream);
bool m1k_tiles_suit(const m1k_attention *p);

#endif
