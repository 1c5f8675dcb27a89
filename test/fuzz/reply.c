/* reply.c - replies taken apart: however tokens cut one, its parts are the same, and nothing that was shown changes. */
#define _GNU_SOURCE /* memmem */
#include "lib/fuzz.h"

#include <string.h>

#include "lib/nano.h"
#include "text/reply.h"

#define MOST_STOPS 3

/* What a reply came to. */
typedef struct parts
{
	m1_reply_state state;
	m1_buf text[M1_CHANNEL_COUNT];
	m1_buf calls;
} parts;

/* How a reply is asked for. */
typedef struct ask
{
	m1_slice stops[MOST_STOPS];
	size_t n_stops;
	bool exact;
	bool calls;
} ask;

static bool
same(const m1_buf *a, m1_slice b)
{
	return a->len == b.len && (b.len == 0 || memcmp(a->data, b.data, b.len) == 0);
}

/* The longest token with which the text begins, or, at `random`, any of them. */
static int32_t
next_token(m1_slice text, fuzz_input *cuts)
{
	const m1_tokenizer *t = nano_tokenizer();
	int32_t found = -1;
	size_t longest = 0;

	for (int32_t id = 0; id < NANO_ROWS; id++)
	{
		const m1_slice piece = m1_tokenizer_piece(t, id);

		if (piece.data == NULL || m1_tokenizer_is_special(t, id) || piece.len > text.len || piece.len <= longest ||
			memcmp(piece.data, text.data, piece.len) != 0)
			continue;
		found = id;
		longest = piece.len;
		if (cuts != NULL && fuzz_random_below(cuts, 2) == 0)
			break;
	}
	fuzz_check(found >= 0, "no token begins with byte %d", (unsigned char) text.data[0]);
	return found;
}

static int32_t
byte_token(char byte)
{
	static int32_t known[256];
	int32_t *id = &known[(unsigned char) byte];

	if (*id == 0)
		*id = next_token((m1_slice){&byte, 1}, NULL) + 1;
	return *id - 1;
}

/* The text in tokens: of single bytes, or cut as the input says. */
static parts
take_apart(m1_slice text, const ask *a, fuzz_input *cuts)
{
	m1_reply *r = m1_reply_create(nano_tokenizer(), a->stops, a->n_stops);
	size_t shown[M1_CHANNEL_COUNT] = {0};
	parts p = {0};

	fuzz_check(r != NULL, "out of memory");
	if (a->exact)
		m1_reply_keep_breaks(r);
	if (a->calls)
		m1_reply_take_calls(r);
	while (text.len > 0)
	{
		const int32_t id = cuts != NULL ? next_token(text, cuts) : byte_token(*text.data);
		const size_t len = m1_tokenizer_piece(nano_tokenizer(), id).len;

		fuzz_check(m1_reply_push(r, id), "out of memory");
		text = (m1_slice){text.data + len, text.len - len};
		for (int c = 0; c < M1_CHANNEL_COUNT; c++)
		{
			const m1_slice now = m1_reply_text(r, (m1_channel) c);

			fuzz_check(now.len >= shown[c], "channel %d became shorter", c);
			if (now.len > shown[c])
				m1_buf_append(&p.text[c], now.data + shown[c], now.len - shown[c]);
			shown[c] = now.len;
		}
	}
	fuzz_check(m1_reply_finish(r) && m1_reply_tool_calls(r, &p.calls), "out of memory");
	for (int c = 0; c < M1_CHANNEL_COUNT; c++)
	{
		const m1_slice now = m1_reply_text(r, (m1_channel) c);

		if (now.len > shown[c])
			m1_buf_append(&p.text[c], now.data + shown[c], now.len - shown[c]);
		fuzz_check(same(&p.text[c], now), "channel %d changed what it had shown", c);
	}
	p.state = m1_reply_where(r);
	m1_reply_free(r);
	return p;
}

static void
free_parts(parts *p)
{
	for (int c = 0; c < M1_CHANNEL_COUNT; c++)
		m1_buf_free(&p->text[c]);
	m1_buf_free(&p->calls);
}

static void
check_stops(const parts *p, const ask *a)
{
	const m1_buf *content = &p->text[M1_CONTENT];

	for (size_t i = 0; i < a->n_stops; i++)
		fuzz_check(a->stops[i].len == 0 || content->len < a->stops[i].len ||
					   memmem(content->data, content->len, a->stops[i].data, a->stops[i].len) == NULL,
				   "a stop string in the content");
}

/* Tags, and what surrounds them, are more likely than chance would have it. */
static m1_buf
make_text(fuzz_input *in)
{
	static const char *const parts_of_replies[] = {"<think>",
												   "</think>",
												   "\n",
												   "\n\n",
												   " ",
												   "<tool_calls>",
												   "</tool_calls>",
												   "{\"name\": \"f\", \"arguments\": {\"x\": ",
												   "1}}",
												   "\"</tool_calls>\"}}",
												   "</thi",
												   "<",
												   "text",
												   "\r",
												   "\t",
												   ",",
												   "\xE4\xB8",
												   "stop",
												   "sto",
												   NULL};
	m1_buf text = {0};

	while (in->left > 0)
	{
		const uint32_t which = fuzz_below(in, 24);

		if (which < 20 && parts_of_replies[which] != NULL)
			m1_buf_puts(&text, parts_of_replies[which]);
		else
		{
			const m1_slice raw = fuzz_take(in, 1 + which % 4);

			m1_buf_append(&text, raw.data, raw.len);
		}
	}
	return text;
}

void
fuzz_one(fuzz_input *in)
{
	static const char *const stops[] = {"", "stop", "\n", "top s", "\n\n", "</", "\xC3\xA4", "<tool", NULL};
	ask a = {
		.exact = fuzz_below(in, 4) == 3, .calls = fuzz_below(in, 2) == 1, .n_stops = fuzz_below(in, MOST_STOPS + 1)};
	fuzz_input cuts = {.random = in->random};
	m1_buf text;
	parts bytes, pieces;

	for (size_t i = 0; i < a.n_stops; i++)
		a.stops[i] = m1_slice_of(fuzz_one_of(in, stops));
	text = make_text(in);
	bytes = take_apart((m1_slice){text.data, text.len}, &a, NULL);
	check_stops(&bytes, &a);
	pieces = take_apart((m1_slice){text.data, text.len}, &a, &cuts);
	for (int c = 0; c < M1_CHANNEL_COUNT; c++)
		fuzz_check(same(&bytes.text[c], (m1_slice){pieces.text[c].data, pieces.text[c].len}),
				   "channel %d: \"%.*s\" or, cut otherwise, \"%.*s\"", c, (int) bytes.text[c].len, bytes.text[c].data,
				   (int) pieces.text[c].len, pieces.text[c].data);
	fuzz_check(bytes.state == pieces.state, "state %d, or, cut otherwise, %d", (int) bytes.state, (int) pieces.state);
	fuzz_check(same(&bytes.calls, (m1_slice){pieces.calls.data, pieces.calls.len}), "other calls, cut otherwise");
	free_parts(&bytes);
	free_parts(&pieces);
	m1_buf_free(&text);
}
