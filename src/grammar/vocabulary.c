/* vocabulary.c - see vocabulary.h. */
#define _GNU_SOURCE /* qsort_r */
#include "grammar/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

static int
by_bytes(const void *a, const void *b, void *tokenizer)
{
	const int32_t x = *(const int32_t *) a;
	const int32_t y = *(const int32_t *) b;
	const m1_slice p = m1_tokenizer_piece(tokenizer, x);
	const m1_slice q = m1_tokenizer_piece(tokenizer, y);
	const int order = memcmp(p.data, q.data, p.len < q.len ? p.len : q.len);

	if (order != 0)
		return order;
	if (p.len != q.len)
		return p.len < q.len ? -1 : 1;
	return x < y ? -1 : x > y;
}

/* Characters of a plain token, 0 when it is not plain. */
static int
plain_characters(m1_slice piece)
{
	int n = 0;

	if (!m1_utf8_valid(piece))
		return 0;
	for (size_t i = 0; i < piece.len; i++)
	{
		const unsigned char c = (unsigned char) piece.data[i];

		if (c < 0x20 || c == '"' || c == '\\')
			return 0;
		n += (c & 0xC0) != 0x80;
	}
	return n <= M1_PLAIN_MAX ? n : 0;
}

/* Ids in the order of their bytes, equal ones chained behind the lowest id. Returns how many are left. */
static int
chain_equal(const m1_tokenizer *t, m1_vocabulary *v, int32_t *ids, int n)
{
	int kept = 0;

	for (int i = 0; i < n; i++)
	{
		const m1_slice piece = m1_tokenizer_piece(t, ids[i]);
		const m1_slice before = kept > 0 ? m1_tokenizer_piece(t, ids[kept - 1]) : (m1_slice){0};

		if (kept > 0 && before.len == piece.len && memcmp(before.data, piece.data, piece.len) == 0)
		{
			v->same[ids[i]] = v->same[ids[kept - 1]];
			v->same[ids[kept - 1]] = ids[i];
		}
		else
			ids[kept++] = ids[i];
	}
	return kept;
}

/* How many bytes two pieces begin with together. */
static size_t
common(m1_slice a, m1_slice b)
{
	size_t n = 0;

	while (n < a.len && n < b.len && a.data[n] == b.data[n])
		n++;
	return n;
}

/* ids in the order of their bytes */
static bool
build_trie(const m1_tokenizer *t, const int32_t *ids, int n, m1_trie *trie)
{
	m1_slice before = {0};
	size_t total = 0;
	int32_t *open; /* the nodes of the current token */
	size_t depth = 0;

	for (int i = 0; i < n; i++)
	{
		const m1_slice piece = m1_tokenizer_piece(t, ids[i]);

		total += piece.len - common(before, piece);
		depth = piece.len > depth ? piece.len : depth;
		before = piece;
	}
	trie->nodes = malloc((total + 1) * sizeof *trie->nodes);
	open = malloc((depth + 1) * sizeof *open);
	if (trie->nodes == NULL || open == NULL)
	{
		free(open);
		return false;
	}
	before = (m1_slice){0};
	for (int i = 0; i < n; i++)
	{
		const m1_slice piece = m1_tokenizer_piece(t, ids[i]);
		const size_t shared = common(before, piece);

		for (size_t d = shared; d < before.len; d++)
			trie->nodes[open[d]].skip = trie->n;
		for (size_t d = shared; d < piece.len; d++)
		{
			open[d] = trie->n;
			trie->nodes[trie->n++] =
				(m1_trie_node){.token = -1, .depth = (uint16_t) d, .byte = (uint8_t) piece.data[d]};
		}
		trie->nodes[trie->n - 1].token = ids[i];
		before = piece;
	}
	for (size_t d = 0; d < before.len; d++)
		trie->nodes[open[d]].skip = trie->n;
	free(open);
	return true;
}

static bool
fill(const m1_tokenizer *t, m1_vocabulary *v, int32_t *ids)
{
	int n = 0;
	int n_rest = 0;

	for (int32_t id = 0; id < v->n_tokens; id++)
	{
		const m1_slice piece = m1_tokenizer_piece(t, id);

		v->same[id] = -1;
		if (piece.data != NULL && !m1_tokenizer_is_special(t, id) && piece.len <= M1_TRIE_MAX_DEPTH)
			ids[n++] = id;
	}
	qsort_r(ids, (size_t) n, sizeof *ids, by_bytes, (void *) t);
	n = chain_equal(t, v, ids, n);
	if (!build_trie(t, ids, n, &v->all))
		return false;
	for (int i = 0; i < n; i++)
	{
		const int characters = plain_characters(m1_tokenizer_piece(t, ids[i]));

		if (characters == 0)
		{
			ids[n_rest++] = ids[i];
			continue;
		}
		for (int32_t id = ids[i]; id >= 0; id = v->same[id])
			m1_mask_add(v->plain[characters], id);
	}
	for (int c = 1; c <= M1_PLAIN_MAX; c++)
		for (int w = 0; w < v->words; w++)
			v->plain[c][w] |= v->plain[c - 1][w];
	return build_trie(t, ids, n_rest, &v->rest);
}

m1_status
m1_vocabulary_create(const m1_tokenizer *t, int n_tokens, m1_vocabulary **out, m1_error *err)
{
	m1_vocabulary *v = calloc(1, sizeof *v);
	int32_t *ids = calloc((size_t) n_tokens, sizeof *ids);
	bool ok = v != NULL && ids != NULL;

	*out = NULL;
	if (ok)
	{
		v->n_tokens = n_tokens;
		v->words = (n_tokens + 63) / 64;
		v->eos = m1_tokenizer_eos(t);
		ok = (v->same = calloc((size_t) n_tokens, sizeof *v->same)) != NULL;
		for (int c = 0; c <= M1_PLAIN_MAX && ok; c++)
			ok = (v->plain[c] = calloc((size_t) v->words, sizeof *v->plain[c])) != NULL;
		ok = ok && fill(t, v, ids);
	}
	free(ids);
	if (!ok)
	{
		m1_vocabulary_free(v);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the tries of the vocabulary");
	}
	*out = v;
	return M1_OK;
}

void
m1_vocabulary_free(m1_vocabulary *v)
{
	if (v == NULL)
		return;
	free(v->all.nodes);
	free(v->rest.nodes);
	for (int c = 0; c <= M1_PLAIN_MAX; c++)
		free(v->plain[c]);
	free(v->same);
	free(v);
}
