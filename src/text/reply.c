/*
 * reply.c - see reply.h.
 *
 * Decoded characters wait in `pending` until it is certain what they are: text that may be the beginning of a tag or of
 * a stop string, and line breaks that may turn out to belong to the markup, are held back there.
 */
#define _GNU_SOURCE /* memmem */
#include "text/reply.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/calls.h"
#include "text/markup.h"

/* A stop string and how much of it the content so far ends with (Knuth, Morris and Pratt). */
typedef struct stop
{
	const char *text; /* in m1_reply.stop_text */
	size_t len;
	uint16_t *border; /* [len]: the longest proper prefix of text[0..i] that it also ends with */
	size_t matched;
} stop;

struct m1_reply
{
	const m1_tokenizer *t;
	m1_reply_state state;
	bool after_tag; /* nothing but line breaks came since a tag: they are markup */
	bool exact;		/* m1_reply_keep_breaks */
	bool takes_calls;
	bool in_string, escaped; /* where the calls have come to */
	int breaks;				 /* that have been dropped since the tag */
	char last;				 /* last byte of the text so far */
	m1_utf8 utf8;
	m1_buf pending;
	m1_buf out[M1_CHANNEL_COUNT];
	m1_buf held;	  /* the line breaks in front of them, for content that follows */
	m1_buf stop_text; /* the stop strings, one after the other */
	stop stops[M1_MAX_STOPS];
	size_t n_stops;
	size_t scanned; /* bytes at the beginning of pending that the stops, or the reader of calls, have seen */
};

static bool
prepare_stop(stop *s)
{
	if ((s->border = malloc(s->len * sizeof *s->border)) == NULL)
		return false;
	s->border[0] = 0;
	for (size_t i = 1, n = 0; i < s->len; i++)
	{
		while (n > 0 && s->text[i] != s->text[n])
			n = s->border[n - 1];
		n += s->text[i] == s->text[n];
		s->border[i] = (uint16_t) n;
	}
	return true;
}

static bool
prepare_stops(m1_reply *r, const m1_slice *stops, size_t n_stops)
{
	const char *at;

	for (size_t i = 0; i < n_stops; i++)
		if (stops[i].len > M1_MAX_STOP_BYTES || !m1_buf_append(&r->stop_text, stops[i].data, stops[i].len))
			return false;
	at = r->stop_text.len > 0 ? r->stop_text.data : "";
	for (size_t i = 0; i < n_stops; at += stops[i++].len)
	{
		if (stops[i].len == 0)
			continue; /* found everywhere, it says nothing */
		r->stops[r->n_stops] = (stop){.text = at, .len = stops[i].len};
		if (!prepare_stop(&r->stops[r->n_stops++]))
			return false;
	}
	return true;
}

m1_reply *
m1_reply_create(const m1_tokenizer *t, const m1_slice *stops, size_t n_stops)
{
	m1_reply *r = n_stops <= M1_MAX_STOPS ? calloc(1, sizeof *r) : NULL;

	if (r == NULL)
		return NULL;
	r->t = t;
	if (!prepare_stops(r, stops, n_stops))
	{
		m1_reply_free(r);
		return NULL;
	}
	return r;
}

void
m1_reply_free(m1_reply *r)
{
	if (r == NULL)
		return;
	m1_buf_free(&r->pending);
	m1_buf_free(&r->out[M1_CONTENT]);
	m1_buf_free(&r->out[M1_REASONING]);
	m1_buf_free(&r->out[M1_TOOL_CALLS]);
	m1_buf_free(&r->held);
	m1_buf_free(&r->stop_text);
	for (size_t i = 0; i < r->n_stops; i++)
		free(r->stops[i].border);
	free(r);
}

static bool
is_break(char c)
{
	return c == '\n' || c == '\r';
}

void
m1_reply_keep_breaks(m1_reply *r)
{
	r->exact = true;
}

void
m1_reply_take_calls(m1_reply *r)
{
	r->takes_calls = true;
}

/* How many bytes at the end of s[0..len) are line breaks. */
static size_t
trailing_breaks(const char *s, size_t len)
{
	size_t n = 0;

	while (n < len && is_break(s[len - 1 - n]))
		n++;
	return n;
}

/* The length of the longest proper prefix of tag that s[0..len) ends with. */
static size_t
partial_tag(const char *s, size_t len, const char *tag, size_t tag_len)
{
	size_t n = tag_len - 1 < len ? tag_len - 1 : len;

	for (; n > 0; n--)
		if (memcmp(s + len - n, tag, n) == 0)
			break;
	return n;
}

static bool
breaks_are_content(const m1_reply *r)
{
	return r->exact && r->state == M1_REPLY_CONTENT;
}

/* Drops the line breaks after a tag. */
static void
skip_breaks_after_tag(m1_reply *r)
{
	size_t n = 0;

	if (!r->after_tag)
		return;
	while (n < r->pending.len && is_break(r->pending.data[n]) &&
		   !(breaks_are_content(r) && r->breaks == M1_THINK_BREAKS))
	{
		n++;
		r->breaks++;
	}
	m1_buf_consume(&r->pending, n);
	r->after_tag = r->pending.len == 0 && !(breaks_are_content(r) && r->breaks == M1_THINK_BREAKS);
}

static void
emit(m1_reply *r, m1_channel channel, size_t n)
{
	if (channel == M1_CONTENT && n > 0 && r->held.len > 0)
	{
		if (r->out[M1_CONTENT].len > 0)
			m1_buf_append(&r->out[M1_CONTENT], r->held.data, r->held.len);
		r->held.len = 0;
	}
	m1_buf_append(&r->out[channel], r->pending.data, n);
	m1_buf_consume(&r->pending, n);
}

/* A tag was found: what it opens comes next. */
static void
enter_after_tag(m1_reply *r, m1_reply_state state)
{
	r->state = state;
	r->after_tag = true;
	r->breaks = 0;
}

/* True when the state has changed and the rest of pending is to be looked at again. */
static bool
drain_opening(m1_reply *r, bool final)
{
	size_t blank = 0;
	size_t left;

	while (blank < r->pending.len && strchr(" \t\r\n", r->pending.data[blank]) != NULL)
		blank++;
	left = r->pending.len - blank;
	if (left >= strlen(M1_THINK_OPEN) && memcmp(r->pending.data + blank, M1_THINK_OPEN, strlen(M1_THINK_OPEN)) == 0)
	{
		m1_buf_consume(&r->pending, blank + strlen(M1_THINK_OPEN));
		enter_after_tag(r, M1_REPLY_REASONING);
		return true;
	}
	if (!final && left < strlen(M1_THINK_OPEN) &&
		(left == 0 || memcmp(r->pending.data + blank, M1_THINK_OPEN, left) == 0))
		return false;
	r->state = M1_REPLY_CONTENT;
	return true;
}

static bool
drain_reasoning(m1_reply *r, bool final)
{
	const size_t tag_len = strlen(M1_THINK_CLOSE);
	const char *tag;
	size_t keep;

	skip_breaks_after_tag(r);
	if (r->pending.len == 0)
		return false;
	tag = memmem(r->pending.data, r->pending.len, M1_THINK_CLOSE, tag_len);
	if (tag != NULL)
	{
		size_t before = (size_t) (tag - r->pending.data);
		size_t breaks = trailing_breaks(r->pending.data, before);

		emit(r, M1_REASONING, before - breaks);
		m1_buf_consume(&r->pending, breaks + tag_len);
		enter_after_tag(r, M1_REPLY_CONTENT);
		return true;
	}
	keep = final ? 0 : partial_tag(r->pending.data, r->pending.len, M1_THINK_CLOSE, tag_len);
	keep += trailing_breaks(r->pending.data, r->pending.len - keep);
	emit(r, M1_REASONING, r->pending.len - keep);
	return false;
}

/* Shows the next byte of content to a stop string; true when it is complete. */
static bool
advance(stop *s, char c)
{
	while (s->matched > 0 && s->text[s->matched] != c)
		s->matched = s->border[s->matched - 1];
	s->matched += s->text[s->matched] == c;
	return s->matched == s->len;
}

/* Shows c to all stop strings; the length of the longest that it completes, or 0. */
static size_t
advance_stops(m1_reply *r, char c)
{
	size_t longest = 0;

	for (size_t i = 0; i < r->n_stops; i++)
		if (advance(&r->stops[i], c) && r->stops[i].len > longest)
			longest = r->stops[i].len;
	return longest;
}

/* How much of the end of pending may be the beginning of a stop string. */
static size_t
partial_stop(const m1_reply *r)
{
	size_t longest = 0;

	for (size_t i = 0; i < r->n_stops; i++)
		if (r->stops[i].matched > longest)
			longest = r->stops[i].matched;
	return longest;
}

/* The content ends before the stop string at `at`. */
static void
stop_at(m1_reply *r, size_t at)
{
	emit(r, M1_CONTENT, at - trailing_breaks(r->pending.data, at));
	r->pending.len = 0;
	r->state = M1_REPLY_STOPPED;
}

static bool
ends_with_tag(const m1_reply *r, size_t len, const char *tag)
{
	const size_t n = strlen(tag);

	return len >= n && memcmp(r->pending.data + len - n, tag, n) == 0;
}

/* What stands between the tags is no content; line breaks in front of them are, if content follows. */
static void
open_calls(m1_reply *r, size_t end)
{
	const size_t at = end - strlen(M1_CALLS_OPEN);
	const size_t breaks = trailing_breaks(r->pending.data, at);

	emit(r, M1_CONTENT, at - breaks);
	m1_buf_append(&r->held, r->pending.data, breaks);
	m1_buf_consume(&r->pending, breaks + strlen(M1_CALLS_OPEN));
	if (r->out[M1_TOOL_CALLS].len > 0)
		m1_buf_puts(&r->out[M1_TOOL_CALLS], "\n");
	r->scanned = 0;
	r->in_string = r->escaped = false;
	r->state = M1_REPLY_CALLS;
}

static void
close_calls(m1_reply *r, size_t end)
{
	emit(r, M1_TOOL_CALLS, end - strlen(M1_CALLS_CLOSE));
	m1_buf_consume(&r->pending, strlen(M1_CALLS_CLOSE));
	for (size_t i = 0; i < r->n_stops; i++)
		r->stops[i].matched = 0;
	r->scanned = 0;
	r->state = M1_REPLY_CONTENT;
	r->after_tag = r->out[M1_CONTENT].len == 0;
	r->breaks = 0;
}

/* Follows the strings of JSON, of which no line break is part. */
static void
follow_string(m1_reply *r, char c)
{
	if (is_break(c))
		r->in_string = r->escaped = false;
	else if (r->escaped)
		r->escaped = false;
	else if (r->in_string && c == '\\')
		r->escaped = true;
	else if (c == '"')
		r->in_string = !r->in_string;
}

/* Up to the closing tag, which is none inside a string. */
static bool
drain_calls(m1_reply *r, bool final)
{
	size_t keep;

	for (; r->scanned < r->pending.len; r->scanned++)
	{
		follow_string(r, r->pending.data[r->scanned]);
		if (!r->in_string && ends_with_tag(r, r->scanned + 1, M1_CALLS_CLOSE))
		{
			close_calls(r, r->scanned + 1);
			return true;
		}
	}
	keep = final || r->in_string || r->pending.len == 0
			   ? 0
			   : partial_tag(r->pending.data, r->pending.len, M1_CALLS_CLOSE, strlen(M1_CALLS_CLOSE));
	emit(r, M1_TOOL_CALLS, r->pending.len - keep);
	r->scanned = r->pending.len;
	return false;
}

/* How much of the end of pending may be the beginning of something that is no content. */
static size_t
partial_end(const m1_reply *r)
{
	const size_t stopped = partial_stop(r);
	const size_t tag =
		!r->takes_calls ? 0 : partial_tag(r->pending.data, r->pending.len, M1_CALLS_OPEN, strlen(M1_CALLS_OPEN));

	return stopped > tag ? stopped : tag;
}

/* The stop string that is complete first wins, however tokens cut the text; the longest of those that end together. */
static bool
drain_content(m1_reply *r, bool final)
{
	size_t keep;

	skip_breaks_after_tag(r);
	for (; r->scanned < r->pending.len; r->scanned++)
	{
		size_t len = advance_stops(r, r->pending.data[r->scanned]);

		if (len > 0)
		{
			stop_at(r, r->scanned + 1 - len);
			return false;
		}
		if (r->takes_calls && ends_with_tag(r, r->scanned + 1, M1_CALLS_OPEN))
		{
			open_calls(r, r->scanned + 1);
			return true;
		}
	}
	if (r->pending.len == 0)
		return false;
	keep = final ? 0 : partial_end(r);
	if (!r->exact)
		keep += trailing_breaks(r->pending.data, r->pending.len - keep);
	emit(r, M1_CONTENT, r->pending.len - keep);
	r->scanned = r->pending.len;
	return false;
}

static bool
drain(m1_reply *r, bool final)
{
	bool again = true;

	while (again)
		switch (r->state)
		{
			case M1_REPLY_OPENING:
				again = drain_opening(r, final);
				break;
			case M1_REPLY_REASONING:
				again = drain_reasoning(r, final);
				break;
			case M1_REPLY_CONTENT:
				again = drain_content(r, final);
				break;
			case M1_REPLY_CALLS:
				again = drain_calls(r, final);
				break;
			case M1_REPLY_STOPPED:
				again = false;
				break;
		}
	return !r->pending.failed && !r->held.failed && !r->out[M1_CONTENT].failed && !r->out[M1_REASONING].failed &&
		   !r->out[M1_TOOL_CALLS].failed;
}

bool
m1_reply_push(m1_reply *r, int32_t id)
{
	if (r->state == M1_REPLY_STOPPED || m1_tokenizer_is_special(r->t, id))
		return true;
	if (!m1_utf8_push(&r->utf8, m1_tokenizer_piece(r->t, id), &r->pending))
		return false;
	if (r->pending.len > 0)
		r->last = r->pending.data[r->pending.len - 1];
	return drain(r, false);
}

bool
m1_reply_finish(m1_reply *r)
{
	if (r->state == M1_REPLY_STOPPED)
		return true;
	return m1_utf8_finish(&r->utf8, &r->pending) && drain(r, true);
}

m1_reply_state
m1_reply_where(const m1_reply *r)
{
	return r->state;
}

bool
m1_reply_in_markup(const m1_reply *r)
{
	return r->pending.len == 0 && (r->after_tag || r->breaks == M1_THINK_BREAKS) && r->out[M1_CONTENT].len == 0;
}

bool
m1_reply_at_line_start(const m1_reply *r)
{
	return r->last == '\n';
}

m1_slice
m1_reply_text(const m1_reply *r, m1_channel channel)
{
	m1_slice text = {r->out[channel].data, r->out[channel].len};

	return text;
}

bool
m1_reply_tool_calls(const m1_reply *r, m1_buf *json)
{
	return m1_calls_read(m1_reply_text(r, M1_TOOL_CALLS), json);
}
