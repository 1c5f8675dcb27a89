/* tokenizer.c - see tokenizer.h. */
#define _GNU_SOURCE /* qsort_r */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "files/jsonfile.h"
#include "text/markup.h"
#include "text/tokenizer_internal.h"

#define CONFIG_NAME "tokenizer_config.json"
#define QUOTED_BYTES 80 /* of a token, in an error */
#define BYTES 256
#define LOOK_EACH 4096 /* bytes or tokens, whether they are still wanted */

/* ---- opening ---- */

static int
quoted(size_t len)
{
	return (int) (len < QUOTED_BYTES ? len : QUOTED_BYTES);
}

m1_status
m1_tokenizer_set(m1_tokenizer *t, int32_t id, m1_slice bytes, bool added, bool special, m1_error *err)
{
	m1_token *token;

	if (id < 0 || id >= t->n_tokens)
	{
		m1_fail(err, M1_E_CORRUPT, "%s: token \"%.*s\" has id %d, outside the model's vocabulary", t->file,
				quoted(bytes.len), bytes.data, id);
		m1_error_detail(err, "The embedding table has %d rows.", t->n_tokens);
		return M1_E_CORRUPT;
	}
	if (bytes.len == 0 || bytes.len > 1 << 20)
		return m1_fail(err, M1_E_CORRUPT, "%s: token %d has an impossible length of %zu bytes", t->file, id, bytes.len);
	token = &t->tokens[id];
	if (token->bytes == NULL)
	{
		if ((token->bytes = malloc(bytes.len)) == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the vocabulary");
		memcpy(token->bytes, bytes.data, bytes.len);
		token->len = (uint32_t) bytes.len;
	}
	else if (token->len != bytes.len || memcmp(token->bytes, bytes.data, bytes.len) != 0)
		return m1_fail(err, M1_E_CORRUPT, "%s: id %d is both token \"%.*s\" and token \"%.*s\"", t->file, id,
					   quoted(token->len), token->bytes, quoted(bytes.len), bytes.data);
	token->added = added;
	token->special = special;
	return M1_OK;
}

/* The byte-level alphabet: printable bytes stand for themselves, the others for U+0100, U+0101, ... in order. */
static bool
is_printable(unsigned b)
{
	return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
}

static int
byte_of_character(unsigned c)
{
	unsigned next = 256;

	if (is_printable(c))
		return (int) c;
	for (unsigned b = 0; b < 256; b++)
		if (!is_printable(b) && next++ == c)
			return (int) b;
	return -1;
}

static unsigned
character_of_byte(unsigned byte)
{
	unsigned next = 256;

	if (is_printable(byte))
		return byte;
	for (unsigned b = 0; b < byte; b++)
		next += !is_printable(b);
	return next;
}

bool
m1_tokenizer_spell(m1_slice s, m1_buf *out)
{
	for (size_t i = 0; i < s.len; i++)
	{
		const unsigned c = character_of_byte((unsigned char) s.data[i]);
		const char utf8[2] = {(char) (c < 0x80 ? c : 0xC0 | c >> 6), (char) (0x80 | (c & 63))};

		m1_buf_append(out, utf8, c < 0x80 ? 1 : 2);
	}
	return !out->failed;
}

bool
m1_tokenizer_unspell(m1_slice s, m1_buf *out)
{
	for (size_t i = 0; i < s.len; i++)
	{
		unsigned c = (unsigned char) s.data[i];
		int byte;
		char one;

		/* all of the alphabet is below U+0800: one or two bytes */
		if (c >= 0x80)
		{
			unsigned next = i + 1 < s.len ? (unsigned char) s.data[++i] : 0;

			if (c < 0xC2 || c > 0xDF || (next & 0xC0) != 0x80)
				return false;
			c = (c & 31) << 6 | (next & 63);
		}
		if ((byte = byte_of_character(c)) < 0)
			return false;
		one = (char) byte;
		if (!m1_buf_append(out, &one, 1))
			return false;
	}
	return true;
}

/* Orders ids so that longer tokens come first and equal ones stand side by side. */
static int
longer_first(const void *a, const void *b, void *tokenizer)
{
	const m1_tokenizer *t = tokenizer;
	const m1_token *x = &t->tokens[*(const int32_t *) a];
	const m1_token *y = &t->tokens[*(const int32_t *) b];

	if (x->len != y->len)
		return x->len > y->len ? -1 : 1;
	return memcmp(x->bytes, y->bytes, x->len);
}

static m1_status
list_added(m1_tokenizer *t, m1_error *err)
{
	for (int i = 0; i < t->n_tokens; i++)
		t->n_added += t->tokens[i].added;
	if ((t->added = calloc((size_t) t->n_added + 1, sizeof *t->added)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the vocabulary");
	for (int i = 0, n = 0; i < t->n_tokens; i++)
		if (t->tokens[i].added)
			t->added[n++] = i;
	qsort_r(t->added, (size_t) t->n_added, sizeof *t->added, longer_first, t);
	for (int i = 1; i < t->n_added; i++)
	{
		const m1_token *token = &t->tokens[t->added[i]];

		if (longer_first(&t->added[i - 1], &t->added[i], t) == 0)
			return m1_fail(err, M1_E_CORRUPT, "%s: added token \"%.*s\" has two ids, %d and %d", t->file,
						   quoted(token->len), token->bytes, t->added[i - 1], t->added[i]);
	}
	return M1_OK;
}

/* Every byte must have a token of its own: text would be lost otherwise. */
static m1_status
index_bytes(m1_tokenizer *t, m1_error *err)
{
	for (int b = 0; b < 256; b++)
		t->byte_id[b] = -1;
	for (int i = t->n_tokens - 1; i >= 0; i--)
		if (t->tokens[i].len == 1 && !t->tokens[i].added)
			t->byte_id[(unsigned char) t->tokens[i].bytes[0]] = i;
	for (int b = 0; b < 256; b++)
		if (t->byte_id[b] < 0)
			return m1_fail(err, M1_E_CORRUPT, "%s: the vocabulary has no token for byte %d", t->file, b);
	return M1_OK;
}

static m1_status
set_eos(m1_tokenizer *t, const char *name, m1_error *err)
{
	if ((t->eos = m1_tokenizer_added_id(t, name)) < 0)
		return m1_fail(err, M1_E_CORRUPT, "%s: the end-of-turn token \"%.80s\" is not an added token", t->file, name);
	return M1_OK;
}

/* eos_token of tokenizer_config.json, as a string or as an object with "content". */
static m1_status
find_eos(m1_tokenizer *t, const char *dir, m1_error *err)
{
	json_t *root;
	const json_t *eos;
	const char *name = M1_TURN_CLOSE;
	m1_status status = m1_json_load_object(dir, CONFIG_NAME, &root, err);

	if (status != M1_OK && status != M1_E_NOT_FOUND)
		return status;
	eos = json_object_get(root, "eos_token");
	if (eos != NULL && !json_is_null(eos))
		name = json_string_value(json_is_object(eos) ? json_object_get(eos, "content") : eos);
	if (name == NULL)
		status = m1_fail(err, M1_E_CORRUPT, CONFIG_NAME ": eos_token is neither a text nor an object with \"content\"");
	else
		status = set_eos(t, name, err);
	json_decref(root);
	return status;
}

/* All tokens are there: what is looked up later. */
static m1_status
finish_load(m1_tokenizer *t, m1_error *err)
{
	m1_status status = list_added(t, err);

	return status == M1_OK ? index_bytes(t, err) : status;
}

/* What ends a turn is never text, whatever its entry says. */
static m1_status
make_eos_special(m1_tokenizer *t, m1_status status)
{
	if (status == M1_OK)
		t->tokens[t->eos].special = true;
	return status;
}

static m1_status
read_folder(m1_tokenizer *t, const char *dir, m1_error *err)
{
	m1_status status = m1_tokenizer_load_json(t, dir, err);

	if (status == M1_E_NOT_FOUND)
		status = m1_tokenizer_load_merges(t, dir, err);
	if (status == M1_E_NOT_FOUND)
	{
		m1_fail(err, status, "the checkpoint has no tokenizer: neither tokenizer.json nor merges.txt");
		m1_error_detail(err, "The folder is \"%s\".", dir);
	}
	return status;
}

static m1_status
load_folder(m1_tokenizer *t, const char *dir, m1_error *err)
{
	m1_status status = read_folder(t, dir, err);

	if (status != M1_OK || (status = finish_load(t, err)) != M1_OK)
		return status;
	return make_eos_special(t, find_eos(t, dir, err));
}

static m1_status
load_gguf(m1_tokenizer *t, const m1_gguf *gguf, m1_error *err)
{
	m1_status status = m1_tokenizer_load_gguf(t, gguf, err);

	if (status != M1_OK || (status = finish_load(t, err)) != M1_OK)
		return status;
	return make_eos_special(t, t->eos < 0 ? set_eos(t, M1_TURN_CLOSE, err) : M1_OK);
}

static m1_status
load_bytes(m1_tokenizer *t, const m1_added_token *added, size_t n_added, m1_error *err)
{
	m1_status status = m1_pretokenizer_create(m1_pretokenizer_o200k, &t->pretokenizer, err);

	t->file = "the list of added tokens";
	if (status == M1_OK && (t->bpe = m1_bpe_create(0)) == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the vocabulary");
	for (int b = 0; b < BYTES && status == M1_OK; b++)
	{
		const char byte = (char) b;

		status = m1_tokenizer_set(t, b, (m1_slice){&byte, 1}, false, false, err);
	}
	for (size_t i = 0; i < n_added && status == M1_OK; i++)
		status = m1_tokenizer_set(t, BYTES + (int32_t) i, m1_slice_of(added[i].content), true, added[i].special, err);
	if (status != M1_OK || (status = finish_load(t, err)) != M1_OK)
		return status;
	return make_eos_special(t, set_eos(t, M1_TURN_CLOSE, err));
}

/* An empty one of that many rows. */
static m1_status
create(int vocab_rows, m1_tokenizer **out, m1_error *err)
{
	m1_tokenizer *t;

	*out = NULL;
	if (vocab_rows <= 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "a vocabulary of %d rows is not possible", vocab_rows);
	t = calloc(1, sizeof *t);
	if (t == NULL || (t->tokens = calloc((size_t) vocab_rows, sizeof *t->tokens)) == NULL)
	{
		free(t);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the vocabulary");
	}
	t->n_tokens = vocab_rows;
	t->eos = -1;
	*out = t;
	return M1_OK;
}

/* A tokenizer that could not be loaded is none. */
static m1_status
finish_open(m1_status status, m1_tokenizer **out)
{
	if (status != M1_OK)
	{
		m1_tokenizer_close(*out);
		*out = NULL;
	}
	return status;
}

m1_status
m1_tokenizer_open(const char *dir, int vocab_rows, m1_tokenizer **out, m1_error *err)
{
	m1_status status = create(vocab_rows, out, err);

	return status == M1_OK ? finish_open(load_folder(*out, dir, err), out) : status;
}

m1_status
m1_tokenizer_open_gguf(const m1_gguf *gguf, int vocab_rows, m1_tokenizer **out, m1_error *err)
{
	m1_status status = create(vocab_rows, out, err);

	return status == M1_OK ? finish_open(load_gguf(*out, gguf, err), out) : status;
}

m1_status
m1_tokenizer_of_bytes(const m1_added_token *added, size_t n_added, m1_tokenizer **out, m1_error *err)
{
	m1_status status = create(BYTES + (int) n_added, out, err);

	return status == M1_OK ? finish_open(load_bytes(*out, added, n_added, err), out) : status;
}

void
m1_tokenizer_close(m1_tokenizer *t)
{
	if (t == NULL)
		return;
	for (int i = 0; i < t->n_tokens; i++)
		free(t->tokens[i].bytes);
	free(t->tokens);
	free(t->added);
	m1_bpe_free(t->bpe);
	m1_pretokenizer_free(t->pretokenizer);
	free(t);
}

/* ---- looking up ---- */

m1_slice
m1_tokenizer_piece(const m1_tokenizer *t, int32_t id)
{
	m1_slice piece = {NULL, 0};

	if (id >= 0 && id < t->n_tokens && t->tokens[id].bytes != NULL)
		piece = (m1_slice){t->tokens[id].bytes, t->tokens[id].len};
	return piece;
}

bool
m1_tokenizer_is_special(const m1_tokenizer *t, int32_t id)
{
	return id >= 0 && id < t->n_tokens && t->tokens[id].special;
}

int32_t
m1_tokenizer_added_id(const m1_tokenizer *t, const char *content)
{
	size_t len = strlen(content);

	for (int i = 0; i < t->n_added; i++)
	{
		const m1_token *token = &t->tokens[t->added[i]];

		if (token->len == len && memcmp(token->bytes, content, len) == 0)
			return t->added[i];
	}
	return -1;
}

int32_t
m1_tokenizer_eos(const m1_tokenizer *t)
{
	return t->eos;
}

/* ---- encoding ---- */

typedef struct encoder
{
	const m1_tokenizer *t;
	m1_ids *ids;
	m1_bpe_space space;
	m1_work *work;
} encoder;

static bool
encode_piece(void *context, m1_slice piece)
{
	encoder *e = context;

	return m1_work_goes_on(e->work, piece.len) &&
		   m1_bpe_apply(e->t->bpe, e->t->byte_id, piece, &e->space, e->work, e->ids);
}

/* The longest added token that text begins with and that may be recognised, or -1. */
static int32_t
added_at(const m1_tokenizer *t, m1_slice text, m1_added_tokens added)
{
	for (int i = 0; i < t->n_added; i++)
	{
		const m1_token *token = &t->tokens[t->added[i]];

		if ((added == M1_ADDED_ALL || !token->special) && token->len <= text.len &&
			memcmp(token->bytes, text.data, token->len) == 0)
			return t->added[i];
	}
	return -1;
}

/*
 * The length of the plain text before the next added token; *id is that token or -1. Nothing is said where the work
 * does not go on.
 */
static size_t
next_added(const m1_tokenizer *t, m1_slice text, m1_added_tokens added, m1_work *work, int32_t *id)
{
	*id = -1;
	if (added == M1_ADDED_NONE)
		return text.len;
	for (size_t i = 0; i < text.len && (i % LOOK_EACH != 0 || m1_work_goes_on(work, 0)); i++)
		if ((*id = added_at(t, (m1_slice){text.data + i, text.len - i}, added)) >= 0)
			return i;
	return text.len;
}

/* Byte offsets where the ids from `first` on end, when they begin at the start of the text. */
static bool
append_ends(const encoder *e, size_t first, m1_ids *ends)
{
	int32_t at = 0;

	if (!m1_ids_reserve(ends, e->ids->len - first))
		return false;
	for (size_t i = first; i < e->ids->len && (i % LOOK_EACH != 0 || m1_work_goes_on(e->work, 0)); i++)
	{
		at += (int32_t) e->t->tokens[e->ids->data[i]].len;
		m1_ids_push(ends, at);
	}
	return true;
}

static m1_status
check_text(m1_slice text, m1_work *work, m1_error *err)
{
	if (text.len > INT32_MAX)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "a text of %zu bytes is too long", text.len);
	if (m1_utf8_valid_while(text, work))
		return M1_OK;
	if (!m1_work_goes_on(work, 0))
		return m1_work_stopped(work, "tokenizing the text", err);
	return m1_fail(err, M1_E_INVALID_ARGUMENT, "the text is not valid UTF-8");
}

/* One after the other: plain text, which may be empty, and the added token behind it. */
static m1_status
encode(encoder *e, m1_slice text, m1_added_tokens added, m1_error *err)
{
	m1_status status = M1_OK;
	int32_t id;

	for (size_t plain; status == M1_OK && text.len > 0 && m1_work_goes_on(e->work, 0); text.len -= plain)
	{
		plain = next_added(e->t, text, added, e->work, &id);
		if (plain > 0)
			status = m1_pretokenize(e->t->pretokenizer, (m1_slice){text.data, plain}, encode_piece, e, e->work, err);
		if (status == M1_OK && id >= 0)
		{
			m1_ids_push(e->ids, id);
			plain += e->t->tokens[id].len;
		}
		text.data += plain;
	}
	return status;
}

m1_status
m1_tokenizer_encode(const m1_tokenizer *t, m1_slice text, m1_added_tokens added, m1_ids *ids, m1_ids *ends,
					m1_work *work, m1_error *err)
{
	encoder e = {.t = t, .ids = ids, .work = work};
	const size_t first = ids->len;
	m1_status status = check_text(text, work, err);

	if (status != M1_OK)
		return status;
	status = encode(&e, text, added, err);
	m1_bpe_space_free(&e.space);
	if (status == M1_OK && (ids->failed || (ends != NULL && !append_ends(&e, first, ends))))
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the tokens of %zu bytes", text.len);
	/* whatever it looks like then */
	return m1_work_goes_on(work, 0) ? status : m1_work_stopped(work, "tokenizing the text", err);
}

/* ---- decoding ---- */

m1_status
m1_tokenizer_decode(const m1_tokenizer *t, const int32_t *ids, size_t n, m1_buf *out, m1_work *work, m1_error *err)
{
	m1_utf8 utf8 = {0};

	for (size_t i = 0; i < n; i++)
	{
		m1_slice piece = m1_tokenizer_piece(t, ids[i]);

		if (!m1_work_goes_on(work, 1))
			return m1_work_stopped(work, "the text of the tokens", err);
		if (piece.data == NULL)
		{
			m1_fail(err, M1_E_INVALID_ARGUMENT, "token id %d is not in the vocabulary", ids[i]);
			m1_error_detail(err, "The vocabulary has %d entries, some of them unused.", t->n_tokens);
			return M1_E_INVALID_ARGUMENT;
		}
		if (!t->tokens[ids[i]].special)
			m1_utf8_push(&utf8, piece, out);
	}
	m1_utf8_finish(&utf8, out);
	return out->failed ? m1_fail(err, M1_E_NO_MEMORY, "out of memory for the text of %zu tokens", n) : M1_OK;
}
