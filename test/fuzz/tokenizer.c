/* tokenizer.c - text to tokens and back: the text is the same, and each token ends where it says. */
#include "lib/fuzz.h"

#include <string.h>

#include "lib/nano.h"

#define RELEASED "test/data"
#define RELEASED_ROWS 200064

static const m1_tokenizer *
released_tokenizer(void)
{
	static m1_tokenizer *t;
	m1_error err;

	if (t == NULL)
		fuzz_check(m1_tokenizer_open(RELEASED, RELEASED_ROWS, &t, &err) == M1_OK, "%s", err.message);
	return t;
}

static void
check_same(const m1_buf *got, m1_slice want, const char *what)
{
	fuzz_check(got->len == want.len && (want.len == 0 || memcmp(got->data, want.data, want.len) == 0),
			   "%s: \"%.*s\" became \"%.*s\"", what, (int) want.len, want.data, (int) got->len, got->data);
}

/* Each token ends where its bytes do in the text. */
static void
check_ends(const m1_tokenizer *t, m1_slice text, const m1_ids *ids, const m1_ids *ends)
{
	size_t at = 0;

	fuzz_check(ends->len == ids->len, "%zu ends of %zu tokens", ends->len, ids->len);
	for (size_t i = 0; i < ids->len; i++)
	{
		const m1_slice piece = m1_tokenizer_piece(t, ids->data[i]);

		fuzz_check(piece.data != NULL && piece.len <= text.len - at &&
					   memcmp(piece.data, text.data + at, piece.len) == 0,
				   "token %d is not what the text has at byte %zu", ids->data[i], at);
		at += piece.len;
		fuzz_check((size_t) ends->data[i] == at, "a token ends at %d, not at %zu", ends->data[i], at);
	}
	fuzz_check(at == text.len, "the tokens have %zu bytes of %zu", at, text.len);
}

static m1_ids
encode(const m1_tokenizer *t, m1_slice text, m1_added_tokens added, m1_ids *ends)
{
	m1_ids ids = {0};
	m1_work work;
	m1_error err;
	m1_status status;

	/* a unit is a byte */
	m1_work_init(&work, text.len);
	status = m1_tokenizer_encode(t, text, added, &ids, ends, &work, &err);
	fuzz_check(status == M1_OK, "%s (%s)", err.message, err.detail);
	return ids;
}

static void
check_text(const m1_tokenizer *t, m1_slice text, m1_added_tokens added)
{
	m1_ids ends = {0};
	m1_ids ids = encode(t, text, added, &ends);
	m1_buf back = {0};
	m1_error err;

	check_ends(t, text, &ids, &ends);
	for (size_t i = 0; i < ids.len; i++)
		fuzz_check(added == M1_ADDED_ALL || !m1_tokenizer_is_special(t, ids.data[i]), "text became control token %d",
				   ids.data[i]);
	fuzz_check(m1_tokenizer_decode(t, ids.data, ids.len, &back, NULL, &err) == M1_OK, "%s", err.message);
	if (added != M1_ADDED_ALL)
		check_same(&back, text, "back again");
	m1_buf_free(&back);
	m1_ids_free(&ids);
	m1_ids_free(&ends);
}

/* Ids that nobody has encoded: those of the vocabulary have a text, which is UTF-8 and can be encoded. */
static void
check_ids(const m1_tokenizer *t, int rows, fuzz_input *in)
{
	m1_ids ids = {0};
	m1_buf text = {0};
	m1_error err;
	m1_status status;

	while (in->left > 1)
	{
		const uint32_t high = fuzz_below(in, 4);

		m1_ids_push(&ids, (int32_t) (high << 16 | fuzz_below(in, 65536)) % (rows + 2) - 1);
	}
	status = m1_tokenizer_decode(t, ids.data, ids.len, &text, NULL, &err);
	if (status != M1_OK)
		fuzz_check_error(status, &err);
	else
		check_text(t, (m1_slice){text.len > 0 ? text.data : "", text.len}, M1_ADDED_NONE);
	m1_buf_free(&text);
	m1_ids_free(&ids);
}

void
fuzz_one(fuzz_input *in)
{
	const uint32_t kind = fuzz_below(in, 16);
	const bool released = kind >= 12;
	const m1_tokenizer *t = released ? released_tokenizer() : nano_tokenizer();
	m1_buf text;

	if (kind % 4 == 3)
	{
		check_ids(t, released ? RELEASED_ROWS : NANO_ROWS, in);
		return;
	}
	text = fuzz_text(fuzz_rest(in));
	check_text(t, (m1_slice){text.data, text.len}, (m1_added_tokens) (kind % 4));
	m1_buf_free(&text);
}
