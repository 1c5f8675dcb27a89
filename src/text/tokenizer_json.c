/*
 * tokenizer_json.c - reads tokenizer.json. What would change the ids and is not implemented is refused by name.
 */
#include <string.h>

#include "files/jsonfile.h"
#include "text/tokenizer_internal.h"

#define FILE_NAME "tokenizer.json"

static m1_status
unsupported(m1_error *err, const char *what)
{
	return m1_fail(err, M1_E_UNSUPPORTED, FILE_NAME ": %s is not supported", what);
}

static m1_status
malformed(m1_error *err, const char *what)
{
	return m1_fail(err, M1_E_CORRUPT, FILE_NAME ": %s", what);
}

static bool
absent(const json_t *value)
{
	return value == NULL || json_is_null(value);
}

/* M1_OK when a field is absent, null or false; true would change the ids. */
static m1_status
check_false(const json_t *object, const char *field, m1_error *err)
{
	const json_t *value = json_object_get(object, field);

	if (json_is_true(value))
		return unsupported(err, field);
	if (!absent(value) && !json_is_boolean(value))
		return m1_fail(err, M1_E_CORRUPT, FILE_NAME ": %s is neither true nor false", field);
	return M1_OK;
}

static bool
is_string(const json_t *value, const char *text)
{
	return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* Whatever is not known may change the ids, or the text. */
static m1_status
check_keys(const json_t *object, const char *const *known, m1_error *err)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *) object, key, value)
	{
		const char *const *k = known;

		while (*k != NULL && strcmp(*k, key) != 0)
			k++;
		if (*k == NULL && !absent(value))
			return unsupported(err, key);
	}
	return M1_OK;
}

/* ---- decoder: of bytes, as the pre-tokenizer spells them; by itself or in a Sequence ---- */

static m1_status
check_decoder(const json_t *decoder, m1_error *err)
{
	const json_t *list = json_object_get(decoder, "decoders");

	if (json_array_size(list) == 1)
		decoder = json_array_get(list, 0);
	if (absent(decoder) || is_string(json_object_get(decoder, "type"), "ByteLevel"))
		return M1_OK;
	return unsupported(err, "a decoder that is not ByteLevel");
}

/* ---- pre_tokenizer: one Split by a regex, then ByteLevel without a regex of its own ---- */

static m1_status
check_byte_level(const json_t *p, m1_error *err)
{
	m1_status status = check_false(p, "add_prefix_space", err);

	if (status != M1_OK)
		return status;
	if (!json_is_false(json_object_get(p, "use_regex")))
		return unsupported(err, "a ByteLevel pre_tokenizer with use_regex");
	return M1_OK;
}

static m1_status
read_split(const json_t *p, const char **pattern, m1_error *err)
{
	const json_t *regex = json_object_get(json_object_get(p, "pattern"), "Regex");

	if (*pattern != NULL)
		return unsupported(err, "more than one Split pre_tokenizer");
	if (!json_is_string(regex))
		return unsupported(err, "a Split pre_tokenizer without a Regex pattern");
	if (!is_string(json_object_get(p, "behavior"), "Isolated") || json_is_true(json_object_get(p, "invert")))
		return unsupported(err, "a Split pre_tokenizer whose behavior is not Isolated");
	*pattern = json_string_value(regex);
	return M1_OK;
}

static m1_status
load_pretokenizer(m1_tokenizer *t, const json_t *root, m1_error *err)
{
	const json_t *sequence = json_object_get(root, "pre_tokenizer");
	const json_t *list = json_object_get(sequence, "pretokenizers");
	const char *pattern = NULL;
	bool byte_level = false;
	size_t i;
	json_t *p;

	if (!is_string(json_object_get(sequence, "type"), "Sequence") || !json_is_array(list))
		return unsupported(err, "a pre_tokenizer that is not a Sequence");
	json_array_foreach (list, i, p)
	{
		const json_t *type = json_object_get(p, "type");
		m1_status status;

		if (byte_level)
			return unsupported(err, "a pre_tokenizer after ByteLevel");
		if (is_string(type, "Split"))
			status = read_split(p, &pattern, err);
		else if (is_string(type, "ByteLevel"))
		{
			status = check_byte_level(p, err);
			byte_level = true;
		}
		else
			status = unsupported(err, json_is_string(type) ? json_string_value(type) : "a nameless pre_tokenizer");
		if (status != M1_OK)
			return status;
	}
	if (pattern == NULL || !byte_level)
		return unsupported(err, "a pre_tokenizer without both Split and ByteLevel");
	return m1_pretokenizer_create(pattern, &t->pretokenizer, err);
}

/* ---- model and its vocab ---- */

static m1_status
check_model(const json_t *model, m1_error *err)
{
	static const char *const null_fields[] = {"dropout", "unk_token", "continuing_subword_prefix",
											  "end_of_word_suffix"};
	static const char *const false_fields[] = {"fuse_unk", "byte_fallback", "ignore_merges"};
	static const char *const known[] = {"type",
										"vocab",
										"merges",
										"dropout",
										"unk_token",
										"continuing_subword_prefix",
										"end_of_word_suffix",
										"fuse_unk",
										"byte_fallback",
										"ignore_merges",
										NULL};

	if (!is_string(json_object_get(model, "type"), "BPE"))
		return unsupported(err, "a model that is not BPE");
	for (size_t i = 0; i < sizeof null_fields / sizeof *null_fields; i++)
	{
		const json_t *value = json_object_get(model, null_fields[i]);

		if (!absent(value) && !is_string(value, ""))
			return unsupported(err, null_fields[i]);
	}
	for (size_t i = 0; i < sizeof false_fields / sizeof *false_fields; i++)
	{
		m1_status status = check_false(model, false_fields[i], err);

		if (status != M1_OK)
			return status;
	}
	return check_keys(model, known, err);
}

static m1_status
load_vocab(m1_tokenizer *t, json_t *vocab, m1_error *err)
{
	m1_buf bytes = {0};
	const char *spelled;
	json_t *id;
	m1_status status = M1_OK;

	if (!json_is_object(vocab))
		return malformed(err, "model.vocab is not an object");
	json_object_foreach (vocab, spelled, id)
	{
		bytes.len = 0;
		if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
			status = malformed(err, "model.vocab holds an id that is not a whole number");
		else if (!m1_tokenizer_unspell(m1_slice_of(spelled), &bytes))
			status =
				m1_fail(err, M1_E_CORRUPT, FILE_NAME ": token \"%.80s\" is not in the byte-level alphabet", spelled);
		else
			status = m1_tokenizer_set(t, (int32_t) json_integer_value(id), (m1_slice){bytes.data, bytes.len}, false,
									  false, err);
		if (status != M1_OK)
			break;
	}
	m1_buf_free(&bytes);
	return status;
}

/* The id of a spelled token, or -1. */
static int32_t
vocab_id(const json_t *vocab, const char *spelled)
{
	const json_t *id = json_object_get(vocab, spelled);

	return json_is_integer(id) ? (int32_t) json_integer_value(id) : -1;
}

/* ---- added_tokens ---- */

static m1_status
load_added(m1_tokenizer *t, const json_t *vocab, const json_t *list, m1_error *err)
{
	size_t i;
	json_t *entry;

	if (absent(list))
		return M1_OK;
	if (!json_is_array(list))
		return malformed(err, "added_tokens is not an array");
	json_array_foreach (list, i, entry)
	{
		static const char *const false_fields[] = {"single_word", "lstrip", "rstrip"};
		const json_t *id = json_object_get(entry, "id");
		const char *content = json_string_value(json_object_get(entry, "content"));
		m1_status status;

		if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX || content == NULL)
			return m1_fail(err, M1_E_CORRUPT, FILE_NAME ": added token %zu has no id or no content", i);
		if (json_object_get(vocab, content) != NULL && vocab_id(vocab, content) != json_integer_value(id))
			return m1_fail(err, M1_E_CORRUPT, FILE_NAME ": added token \"%.80s\" has another id in model.vocab",
						   content);
		for (size_t f = 0; f < sizeof false_fields / sizeof *false_fields; f++)
			if ((status = check_false(entry, false_fields[f], err)) != M1_OK)
				return status;
		status = m1_tokenizer_set(t, (int32_t) json_integer_value(id), m1_slice_of(content), true,
								  json_is_true(json_object_get(entry, "special")), err);
		if (status != M1_OK)
			return status;
	}
	return M1_OK;
}

/* ---- merges ---- */

/* Splits a merge, "a b" or ["a", "b"], into two C strings in buf, one after the other. */
static bool
read_merge(const json_t *merge, m1_buf *buf, const char **left, const char **right)
{
	const char *text = json_string_value(merge);
	const char *gap = text != NULL ? strchr(text, ' ') : NULL;
	const char *a = json_string_value(json_array_get(merge, 0));
	const char *b = json_string_value(json_array_get(merge, 1));
	size_t a_len;

	if (text != NULL)
	{
		if (gap == NULL || strchr(gap + 1, ' ') != NULL)
			return false;
		a = text;
		b = gap + 1;
	}
	if (a == NULL || b == NULL)
		return false;
	a_len = text != NULL ? (size_t) (gap - text) : strlen(a);
	buf->len = 0;
	m1_buf_append(buf, a, a_len);
	m1_buf_append(buf, "", 1);
	m1_buf_puts(buf, b);
	m1_buf_append(buf, "", 1);
	if (buf->failed)
		return false;
	*left = buf->data;
	*right = buf->data + a_len + 1;
	return true;
}

static m1_status
load_merges(m1_tokenizer *t, const json_t *vocab, const json_t *merges, m1_error *err)
{
	m1_buf pair = {0};
	m1_buf joined = {0};
	m1_status status = M1_OK;
	size_t i;
	json_t *merge;

	if (!json_is_array(merges))
		return malformed(err, "model.merges is not an array");
	if ((t->bpe = m1_bpe_create(json_array_size(merges))) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the merges");
	json_array_foreach (merges, i, merge)
	{
		const char *left;
		const char *right;
		int32_t a, b, c;

		if (!read_merge(merge, &pair, &left, &right))
		{
			status = m1_fail(err, M1_E_CORRUPT, FILE_NAME ": merge %zu is not a pair of tokens", i);
			break;
		}
		joined.len = 0;
		m1_buf_puts(&joined, left);
		m1_buf_puts(&joined, right);
		a = vocab_id(vocab, left);
		b = vocab_id(vocab, right);
		c = m1_buf_cstr(&joined) != NULL ? vocab_id(vocab, joined.data) : -1;
		if (a < 0 || b < 0 || c < 0)
		{
			status = m1_fail(err, M1_E_CORRUPT,
							 FILE_NAME ": merge %zu, \"%.60s\" with \"%.60s\", names an unknown token", i, left, right);
			break;
		}
		if (t->tokens[c].special)
			status = m1_fail(err, M1_E_CORRUPT, FILE_NAME ": merge %zu would make the control token \"%.60s\" of text",
							 i, joined.data);
		else if (!m1_bpe_add(t->bpe, (int32_t) i, a, b, c))
			status = m1_fail(err, M1_E_CORRUPT, FILE_NAME ": merge %zu, \"%.60s\" with \"%.60s\", is there twice", i,
							 left, right);
		if (status != M1_OK)
			break;
	}
	m1_buf_free(&pair);
	m1_buf_free(&joined);
	return status;
}

static m1_status
load_root(m1_tokenizer *t, const json_t *root, m1_error *err)
{
	const json_t *model = json_object_get(root, "model");
	/* of these, post_processor, truncation and padding are about whole inputs, which the chat's form makes here */
	static const char *const known[] = {"version",		 "truncation", "padding", "added_tokens",	"normalizer",
										"pre_tokenizer", "model",	   "decoder", "post_processor", NULL};
	json_t *vocab = json_object_get(model, "vocab");
	m1_status status;

	if (!absent(json_object_get(root, "normalizer")))
		return unsupported(err, "a normalizer");
	if ((status = check_keys(root, known, err)) != M1_OK ||
		(status = check_decoder(json_object_get(root, "decoder"), err)) != M1_OK ||
		(status = check_model(model, err)) != M1_OK || (status = load_pretokenizer(t, root, err)) != M1_OK ||
		(status = load_vocab(t, vocab, err)) != M1_OK ||
		(status = load_added(t, vocab, json_object_get(root, "added_tokens"), err)) != M1_OK)
		return status;
	return load_merges(t, vocab, json_object_get(model, "merges"), err);
}

m1_status
m1_tokenizer_load_json(m1_tokenizer *t, const char *dir, m1_error *err)
{
	json_t *root;
	m1_status status = m1_json_load_object(dir, FILE_NAME, &root, err);

	t->file = FILE_NAME;
	if (status == M1_OK)
		status = load_root(t, root, err);
	json_decref(root);
	return status;
}
