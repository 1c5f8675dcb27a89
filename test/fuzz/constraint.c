/*
 * constraint.c - constraints as replies meet them: whatever tokens the masks allow, in whatever room, the answer is one
 * that was asked for, and there is always a token that may come next.
 */
#include "lib/fuzz.h"

#include <string.h>

#include "grammar/constraint.h"
#include "json_judge.h"
#include "lib/nano.h"
#include "lib/regex_text.h"
#include "lib/schema_text.h"
#include "regex_judge.h"

#define MOST_TOKENS 60

static m1_vocabulary *vocabulary;

static void
open_vocabulary(void)
{
	m1_error err;

	if (vocabulary == NULL)
		fuzz_check(m1_vocabulary_create(nano_tokenizer(), NANO_ROWS, &vocabulary, &err) == M1_OK, "%s", err.message);
}

/* ---- constraints ---- */

typedef struct asked
{
	m1_constraint_kind kind;
	m1_buf text;
} asked;

static m1_buf
choices_make(fuzz_input *in)
{
	json_t *list = json_array();

	for (uint32_t n = 1 + fuzz_below(in, 8); n > 0; n--)
	{
		m1_buf choice = {0};

		for (uint32_t k = 1 + fuzz_below(in, 6); k > 0; k--)
			m1_buf_puts(&choice, regex_text_character(in));
		json_array_append_new(list, json_stringn(choice.data, choice.len));
		m1_buf_free(&choice);
	}
	return json_text_of(list);
}

static asked
make_asked(fuzz_input *in)
{
	switch (fuzz_below(in, 3))
	{
		case 0:
			return (asked){M1_CONSTRAINT_JSON_SCHEMA, schema_text_make(in)};
		case 1:
			return (asked){M1_CONSTRAINT_REGEX, regex_text_make(in, 2).text};
		default:
			return (asked){M1_CONSTRAINT_CHOICES, choices_make(in)};
	}
}

/* An answer that came to its end. */
static void
check_answer(const asked *a, const m1_buf *answer)
{
	const m1_slice text = {answer->len > 0 ? answer->data : "", answer->len};
	const m1_slice asked_for = {a->text.data, a->text.len};
	json_t *parsed =
		a->kind == M1_CONSTRAINT_REGEX ? NULL : json_loadb(asked_for.data, asked_for.len, JSON_DECODE_ANY, NULL);
	json_t *value = NULL;
	json_t *one;
	size_t i;
	bool good = false;

	switch (a->kind)
	{
		case M1_CONSTRAINT_NONE:
			break;
		case M1_CONSTRAINT_CHOICES:
			json_array_foreach (parsed, i, one)
				good |= json_string_length(one) == text.len && memcmp(json_string_value(one), text.data, text.len) == 0;
			break;
		case M1_CONSTRAINT_JSON_SCHEMA:
			value = json_loadb(text.data, text.len, JSON_DECODE_ANY, NULL);
			good = value != NULL && json_judge(parsed, parsed, value);
			break;
		case M1_CONSTRAINT_REGEX:
			good = regex_judge(asked_for, text, false) != REGEX_DIFFERS;
			break;
	}
	fuzz_check(good, "%.*s: the answer \"%.*s\"", (int) asked_for.len, asked_for.data, (int) text.len, text.data);
	json_decref(value);
	json_decref(parsed);
}

/* ---- replies ---- */

/* One of the tokens of a mask, by chance; -1 when there is none. */
static int32_t
pick(const uint64_t *mask, fuzz_input *in)
{
	int n = 0;

	for (int w = 0; w < vocabulary->words; w++)
		n += __builtin_popcountll(mask[w]);
	if (n == 0)
		return -1;
	n = (int) fuzz_random_below(in, (uint32_t) n);
	for (int32_t id = 0;; id++)
		if (m1_mask_has(mask, id) && n-- == 0)
			return id;
}

/* At once, or in turns. */
static m1_status
whole_mask(m1_cursor *cursor, int tokens, fuzz_input *in, uint64_t *mask, m1_error *err)
{
	const bool in_turns = fuzz_random_below(in, 2) == 1;
	m1_status status = M1_OK;
	bool done = false;

	for (int turns = 0; !done && status == M1_OK; turns++)
	{
		int64_t turn = in_turns ? m1_cursor_ordinary_work(cursor) : M1_NO_TURN;

		fuzz_check(turns < 1000, "a mask without an end");
		status = m1_cursor_mask(cursor, tokens, &turn, mask, &done, err);
	}
	return status;
}

/* A reply in so many tokens. false when the constraint became too complex for it. */
static bool
reply(m1_constraint *c, int tokens, fuzz_input *in, m1_buf *answer, bool *ended)
{
	uint64_t mask[(NANO_ROWS + 63) / 64];
	m1_cursor *cursor = m1_cursor_create(c);
	bool only;
	bool ok = true;
	m1_error err;

	*ended = false;
	answer->len = 0;
	fuzz_check(m1_cursor_read(cursor, m1_slice_of("<think>\nx</think>\n\n"), &err) == M1_OK, "%s", err.message);
	for (; tokens > 0 && ok && !*ended; tokens--)
	{
		m1_slice piece;
		int32_t id;

		if (whole_mask(cursor, tokens, in, mask, &err) != M1_OK)
		{
			fuzz_check_error(err.code, &err);
			ok = false;
			break;
		}
		id = pick(mask, in);
		fuzz_check(id >= 0, "no token may come behind \"%.*s\"", (int) answer->len, answer->data);
		*ended = id == vocabulary->eos;
		fuzz_check(!*ended || m1_cursor_at_end(cursor, &only), "an end that is none");
		if (*ended)
			break;
		piece = m1_tokenizer_piece(nano_tokenizer(), id);
		fuzz_check(piece.data != NULL && !m1_tokenizer_is_special(nano_tokenizer(), id), "token %d is allowed", id);
		ok = m1_cursor_read(cursor, piece, &err) == M1_OK;
		fuzz_check(ok || err.code == M1_E_UNSUPPORTED, "a token that is allowed and refused: %s", err.message);
		m1_buf_append(answer, piece.data, piece.len);
		*ended = ok && m1_cursor_at_end(cursor, &only) && only;
	}
	m1_cursor_free(cursor);
	return ok;
}

void
fuzz_one(fuzz_input *in)
{
	asked a = make_asked(in);
	m1_buf answer = {0};
	m1_constraint *c;
	m1_error err;
	m1_status status;
	bool ended;

	open_vocabulary();
	status = m1_constraint_compile(&(m1_constraint_spec){.kind = a.kind, .text = {a.text.data, a.text.len}}, vocabulary,
								   NULL, &c, &err);
	if (status != M1_OK)
		fuzz_check_error(status, &err);
	for (int i = 0; status == M1_OK && i < 3; i++)
	{
		/* each byte may be a token: with that many the shortest answer must come to its end */
		const int room = a.kind == M1_CONSTRAINT_CHOICES ? MOST_TOKENS : m1_constraint_room(c) + 1 + 10 * i;

		if (room > MOST_TOKENS * 4)
			break;
		if (!reply(c, room, in, &answer, &ended))
			break;
		fuzz_check(ended, "%.*s: no end in %d tokens: \"%.*s\"", (int) a.text.len, a.text.data, room, (int) answer.len,
				   answer.data);
		check_answer(&a, &answer);
	}
	if (status == M1_OK)
		m1_constraint_release(c);
	m1_buf_free(&answer);
	m1_buf_free(&a.text);
}
