/* token_index.c - finds tokens by their bytes, and takes merges apart, while a tokenizer is loaded. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_internal.h"

bool
m1_token_index_init(m1_token_index *index, size_t n)
{
	size_t cap = 16;

	while (cap < 2 * n)
		cap *= 2;
	index->mask = cap - 1;
	if ((index->slots = malloc(cap * sizeof *index->slots)) == NULL)
		return false;
	memset(index->slots, 0xff, cap * sizeof *index->slots);
	return true;
}

void
m1_token_index_free(m1_token_index *index)
{
	free(index->slots);
	index->slots = NULL;
}

static size_t
hash_bytes(m1_slice s)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < s.len; i++)
		h = (h ^ (unsigned char) s.data[i]) * 0x100000001b3u;
	return (size_t) (h ^ h >> 29);
}

int32_t *
m1_token_index_slot(const m1_tokenizer *t, const m1_token_index *index, m1_slice bytes)
{
	size_t i = hash_bytes(bytes) & index->mask;

	while (index->slots[i] >= 0)
	{
		const m1_token *token = &t->tokens[index->slots[i]];

		if (token->len == bytes.len && memcmp(token->bytes, bytes.data, bytes.len) == 0)
			break;
		i = (i + 1) & index->mask;
	}
	return &index->slots[i];
}

bool
m1_tokenizer_unspell_merge(m1_slice line, m1_buf *bytes, size_t *left_len)
{
	const char *gap = line.len > 0 ? memchr(line.data, ' ', line.len) : NULL;

	bytes->len = 0;
	if (gap == NULL || !m1_tokenizer_unspell((m1_slice){line.data, (size_t) (gap - line.data)}, bytes))
		return false;
	*left_len = bytes->len;
	return m1_tokenizer_unspell((m1_slice){gap + 1, line.len - (size_t) (gap + 1 - line.data)}, bytes) &&
		   *left_len > 0 && bytes->len > *left_len;
}
