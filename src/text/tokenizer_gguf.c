/*
 * tokenizer_gguf.c - reads and writes the tokenizer of a GGUF file: tokenizer.ggml.*. What would change the ids and is
 * not implemented is refused by name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/markup.h"
#include "text/tokenizer_internal.h"

#define KEY(name) "tokenizer.ggml." name

/* Types of tokens, as the format numbers them. */
enum
{
	TOKEN_NORMAL = 1,
	TOKEN_UNKNOWN = 2,
	TOKEN_CONTROL = 3,
	TOKEN_USER_DEFINED = 4, /* recognised as a whole, but text */
	TOKEN_UNUSED = 5,		/* a row that no token uses */
	TOKEN_BYTE = 6,
};

/* The pre-tokenizers that such files name, and their patterns. */
static const struct
{
	const char *name;
	const char *pattern;
} patterns[] = {
	{M1_GGUF_PRETOKENIZER, m1_pretokenizer_o200k},
	{"gpt-2", m1_pretokenizer_gpt2},
};

static bool
is_text(const m1_gguf_value *v, const char *text)
{
	const m1_slice s = m1_gguf_text(v);

	return s.data != NULL && s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

static m1_status
malformed(const m1_tokenizer *t, const char *key, const char *why, m1_error *err)
{
	return m1_fail(err, M1_E_CORRUPT, "%s: %s %s", t->file, key, why);
}

static m1_status
load_pretokenizer(m1_tokenizer *t, const m1_gguf *g, m1_error *err)
{
	const m1_gguf_value *pre = m1_gguf_find(g, KEY("pre"));
	const m1_slice name = m1_gguf_text(pre);

	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
		if (is_text(pre, patterns[i].name))
			return m1_pretokenizer_create(patterns[i].pattern, &t->pretokenizer, err);
	m1_fail(err, M1_E_UNSUPPORTED, "%s: " KEY("pre") " names no pre-tokenizer that is supported", t->file);
	m1_error_detail(err, "It is \"%.*s\"; supported are " M1_GGUF_PRETOKENIZER " and gpt-2.",
					(int) (name.len < 80 ? name.len : 80), name.data != NULL ? name.data : "");
	return M1_E_UNSUPPORTED;
}

/* An array of that many elements of a kind, or NULL and an error. */
static const m1_gguf_value *
find_array(const m1_tokenizer *t, const m1_gguf *g, const char *key, bool of_text, m1_error *err)
{
	const m1_gguf_value *v = m1_gguf_find(g, key);

	if (v != NULL && v->is_array && (v->type == M1_GGUF_STRING) == of_text)
		return v;
	malformed(t, key, v == NULL ? "is missing" : "is not an array of the right type", err);
	return NULL;
}

/* ---- tokens ---- */

static m1_status
load_token(m1_tokenizer *t, int32_t id, m1_slice spelled, int64_t type, m1_buf *bytes, m1_error *err)
{
	switch (type)
	{
		case TOKEN_UNUSED:
			return M1_OK;
		case TOKEN_CONTROL:
		case TOKEN_UNKNOWN:
			return m1_tokenizer_set(t, id, spelled, true, true, err);
		case TOKEN_USER_DEFINED:
			return m1_tokenizer_set(t, id, spelled, true, false, err);
		case TOKEN_NORMAL:
		case TOKEN_BYTE:
			bytes->len = 0;
			if (!m1_tokenizer_unspell(spelled, bytes))
				return m1_fail(err, M1_E_CORRUPT, "%s: " KEY("tokens") ": token %d is not in the byte-level alphabet",
							   t->file, id);
			return m1_tokenizer_set(t, id, (m1_slice){bytes->data, bytes->len}, false, false, err);
		default:
			return m1_fail(err, M1_E_CORRUPT, "%s: " KEY("token_type") ": token %d has an unknown type", t->file, id);
	}
}

static m1_status
load_tokens(m1_tokenizer *t, const m1_gguf *g, m1_error *err)
{
	const m1_gguf_value *tokens = find_array(t, g, KEY("tokens"), true, err);
	const m1_gguf_value *types = tokens != NULL ? find_array(t, g, KEY("token_type"), false, err) : NULL;
	m1_buf bytes = {0};
	m1_status status = M1_OK;
	size_t at = 0;

	if (types == NULL)
		return M1_E_CORRUPT;
	if (tokens->count > (size_t) t->n_tokens || types->count != tokens->count)
	{
		malformed(t, KEY("tokens"), "does not fit the model", err);
		m1_error_detail(err, "There are %zu tokens and %zu types; the embedding table has %d rows.", tokens->count,
						types->count, t->n_tokens);
		return M1_E_CORRUPT;
	}
	for (size_t i = 0; i < tokens->count && status == M1_OK; i++)
	{
		const m1_slice spelled = m1_gguf_next_text(tokens, &at);
		int64_t type;

		if (!m1_gguf_integer(types, i, &type))
			type = 0;
		status = load_token(t, (int32_t) i, spelled, type, &bytes, err);
	}
	m1_buf_free(&bytes);
	return status;
}

/* Tokens that the model was never trained on: rows like any other that no token uses. */
static m1_status
load_suppressed(m1_tokenizer *t, const m1_gguf *g, m1_error *err)
{
	const m1_gguf_value *v = m1_gguf_find(g, KEY("suppress_tokens"));

	for (size_t i = 0; v != NULL && i < v->count; i++)
	{
		int64_t id;

		if (!m1_gguf_integer(v, i, &id) || id < 0 || id >= t->n_tokens)
			return malformed(t, KEY("suppress_tokens"), "holds something that is not a token's id", err);
		free(t->tokens[id].bytes);
		t->tokens[id] = (m1_token){0};
	}
	return M1_OK;
}

/* ---- merges ---- */

static m1_status
load_merge(m1_tokenizer *t, const m1_token_index *index, int32_t rank, m1_slice merge, m1_buf *bytes, m1_error *err)
{
	size_t left_len;
	int32_t left, right, joined;

	if (!m1_tokenizer_unspell_merge(merge, bytes, &left_len))
		return m1_fail(err, M1_E_CORRUPT, "%s: " KEY("merges") ": merge %d is not a pair of tokens", t->file, rank);
	left = *m1_token_index_slot(t, index, (m1_slice){bytes->data, left_len});
	right = *m1_token_index_slot(t, index, (m1_slice){bytes->data + left_len, bytes->len - left_len});
	joined = *m1_token_index_slot(t, index, (m1_slice){bytes->data, bytes->len});
	if (left < 0 || right < 0 || joined < 0)
		return m1_fail(err, M1_E_CORRUPT, "%s: " KEY("merges") ": merge %d names an unknown token", t->file, rank);
	if (t->tokens[joined].special)
		return m1_fail(err, M1_E_CORRUPT, "%s: " KEY("merges") ": merge %d would make a control token of text", t->file,
					   rank);
	if (!m1_bpe_add(t->bpe, rank, left, right, joined))
		return m1_fail(err, M1_E_CORRUPT, "%s: " KEY("merges") ": merge %d is there twice", t->file, rank);
	return M1_OK;
}

static m1_status
load_merges(m1_tokenizer *t, const m1_gguf *g, m1_error *err)
{
	const m1_gguf_value *merges = find_array(t, g, KEY("merges"), true, err);
	m1_token_index index = {0};
	m1_buf bytes = {0};
	m1_status status = M1_OK;
	size_t at = 0;

	if (merges == NULL)
		return M1_E_CORRUPT;
	if (merges->count > INT32_MAX)
		return malformed(t, KEY("merges"), "has an absurd number of elements", err);
	t->bpe = m1_bpe_create(merges->count);
	if (t->bpe == NULL || !m1_token_index_init(&index, (size_t) t->n_tokens))
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the merges");
	/* of two tokens with the same bytes, merges mean the one that is text */
	for (int32_t i = 0; i < t->n_tokens; i++)
	{
		int32_t *slot;

		if (t->tokens[i].bytes == NULL)
			continue;
		slot = m1_token_index_slot(t, &index, (m1_slice){t->tokens[i].bytes, t->tokens[i].len});
		if (*slot < 0 || t->tokens[*slot].added)
			*slot = i;
	}
	for (size_t i = 0; i < merges->count && status == M1_OK; i++)
		status = load_merge(t, &index, (int32_t) i, m1_gguf_next_text(merges, &at), &bytes, err);
	m1_token_index_free(&index);
	m1_buf_free(&bytes);
	return status;
}

/* ---- all of it ---- */

static m1_status
find_eos(m1_tokenizer *t, const m1_gguf *g, m1_error *err)
{
	const m1_gguf_value *v = m1_gguf_find(g, KEY("eos_token_id"));
	int64_t id;

	if (v == NULL)
		return M1_OK;
	if (!m1_gguf_integer(v, 0, &id) || id < 0 || id >= t->n_tokens || !t->tokens[id].added)
		return malformed(t, KEY("eos_token_id"), "is not the id of an added token", err);
	t->eos = (int32_t) id;
	return M1_OK;
}

m1_status
m1_tokenizer_load_gguf(m1_tokenizer *t, const m1_gguf *g, m1_error *err)
{
	const m1_gguf_value *model = m1_gguf_find(g, KEY("model"));
	const m1_gguf_value *prefix = m1_gguf_find(g, KEY("add_space_prefix"));
	int64_t adds_space = 0;
	m1_status status;

	t->file = m1_gguf_file(g);
	if (model == NULL || is_text(model, "none") || is_text(model, "no_vocab"))
		return m1_fail(err, M1_E_NOT_FOUND, "%s has no tokenizer", t->file);
	if (!is_text(model, "gpt2"))
		return m1_fail(err, M1_E_UNSUPPORTED, "%s: " KEY("model") " must be gpt2, byte-level BPE", t->file);
	if (prefix != NULL && (!m1_gguf_integer(prefix, 0, &adds_space) || adds_space != 0))
		return m1_fail(err, M1_E_UNSUPPORTED, "%s: " KEY("add_space_prefix") " is not supported", t->file);
	if ((status = load_pretokenizer(t, g, err)) != M1_OK || (status = load_tokens(t, g, err)) != M1_OK ||
		(status = load_suppressed(t, g, err)) != M1_OK || (status = load_merges(t, g, err)) != M1_OK)
		return status;
	return find_eos(t, g, err);
}

/* ---- writing ---- */

static m1_status
write_pretokenizer(const m1_tokenizer *t, m1_gguf_writer *w, m1_error *err)
{
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
		if (strcmp(m1_pretokenizer_pattern(t->pretokenizer), patterns[i].pattern) == 0)
		{
			m1_gguf_write_text(w, KEY("pre"), m1_slice_of(patterns[i].name));
			return M1_OK;
		}
	m1_fail(err, M1_E_UNSUPPORTED, "a GGUF file cannot hold this model's pre-tokenizer");
	m1_error_detail(err, "Its pattern is not the one that MiniMax-M1 was released with.");
	return M1_E_UNSUPPORTED;
}

static void
write_tokens(const m1_tokenizer *t, m1_gguf_writer *w, m1_buf *spelled)
{
	m1_gguf_write_array(w, KEY("tokens"), M1_GGUF_STRING, (size_t) t->n_tokens);
	for (int i = 0; i < t->n_tokens; i++)
	{
		const m1_token *token = &t->tokens[i];
		char unused[32];

		spelled->len = 0;
		if (token->bytes == NULL)
		{
			snprintf(unused, sizeof unused, "[PAD%d]", i);
			m1_buf_puts(spelled, unused);
		}
		else if (token->added)
			m1_buf_append(spelled, token->bytes, token->len);
		else
			m1_tokenizer_spell((m1_slice){token->bytes, token->len}, spelled);
		m1_gguf_write_text_element(w, (m1_slice){spelled->data, spelled->len});
	}
	m1_gguf_write_array(w, KEY("token_type"), M1_GGUF_I32, (size_t) t->n_tokens);
	for (int i = 0; i < t->n_tokens; i++)
	{
		const m1_token *token = &t->tokens[i];

		m1_gguf_write_i32_element(w, token->bytes == NULL ? TOKEN_UNUSED
									 : token->special	  ? TOKEN_CONTROL
									 : token->added		  ? TOKEN_USER_DEFINED
														  : TOKEN_NORMAL);
	}
}

static bool
write_merges(const m1_tokenizer *t, m1_gguf_writer *w, m1_buf *spelled)
{
	const size_t n = m1_bpe_count(t->bpe);
	int32_t(*pairs)[2] = calloc(n + 1, sizeof *pairs);

	if (pairs == NULL)
		return false;
	m1_bpe_list(t->bpe, pairs);
	m1_gguf_write_array(w, KEY("merges"), M1_GGUF_STRING, n);
	for (size_t i = 0; i < n; i++)
	{
		const m1_token *left = &t->tokens[pairs[i][0]];
		const m1_token *right = &t->tokens[pairs[i][1]];

		spelled->len = 0;
		m1_tokenizer_spell((m1_slice){left->bytes, left->len}, spelled);
		m1_buf_puts(spelled, " ");
		m1_tokenizer_spell((m1_slice){right->bytes, right->len}, spelled);
		m1_gguf_write_text_element(w, (m1_slice){spelled->data, spelled->len});
	}
	free(pairs);
	return true;
}

m1_status
m1_tokenizer_write_gguf(const m1_tokenizer *t, m1_gguf_writer *w, m1_error *err)
{
	static const struct
	{
		const char *key;
		const char *token;
	} roles[] = {{KEY("bos_token_id"), M1_TURN_OPEN}, {KEY("padding_token_id"), "<pad>"}};
	m1_buf spelled = {0};
	m1_status status;
	bool ok;

	m1_gguf_write_text(w, KEY("model"), m1_slice_of("gpt2"));
	if ((status = write_pretokenizer(t, w, err)) != M1_OK)
		return status;
	write_tokens(t, w, &spelled);
	ok = write_merges(t, w, &spelled) && !spelled.failed;
	m1_buf_free(&spelled);
	m1_gguf_write_u32(w, KEY("eos_token_id"), (uint32_t) t->eos);
	for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
		if (m1_tokenizer_added_id(t, roles[i].token) >= 0)
			m1_gguf_write_u32(w, roles[i].key, (uint32_t) m1_tokenizer_added_id(t, roles[i].token));
	m1_gguf_write_bool(w, KEY("add_bos_token"), false);
	return ok ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for the tokenizer");
}
