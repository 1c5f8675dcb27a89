/*
 * reply.c - see reply.h.
 *
 * Decoded characters wait in `pending` until it is certain what they are: text that
 * may be the beginning of a tag or of a stop string, and line breaks that may turn
 * out to belong to the markup, are held back there.
 */
#define _GNU_SOURCE /* memmem, memrchr */
#include "model/reply.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "model/utf8.h"

#define THINK_OPEN "<think>"
#define THINK_CLOSE "</think>"
#define CALLS_OPEN "<tool_calls>"
#define CALLS_CLOSE "</tool_calls>"

struct m1_reply
{
	const m1_tokenizer *t;
	m1_reply_state state;
	bool at_start; /* of the current channel: line breaks here are markup */
	char last;	   /* last byte of the text so far */
	m1_utf8 utf8;
	m1_buf pending;
	m1_buf out[M1W_CHANNEL_COUNT];
	m1_buf stop_text; /* the stop strings, one after the other */
	size_t stop_len[M1W_MAX_STOPS];
	size_t n_stops;
};

m1_reply *
m1_reply_create(const m1_tokenizer *t, const m1_slice *stops, size_t n_stops)
{
	m1_reply *r = calloc(1, sizeof *r);

	if (r == NULL || n_stops > M1W_MAX_STOPS)
	{
		free(r);
		return NULL;
	}
	r->t = t;
	r->at_start = true;
	for (size_t i = 0; i < n_stops; i++)
	{
		m1_buf_append(&r->stop_text, stops[i].data, stops[i].len);
		r->stop_len[r->n_stops++] = stops[i].len;
	}
	if (r->stop_text.failed)
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
	m1_buf_free(&r->out[M1W_CONTENT]);
	m1_buf_free(&r->out[M1W_REASONING]);
	m1_buf_free(&r->stop_text);
	free(r);
}

static bool
is_break(char c)
{
	return c == '\n' || c == '\r';
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

static void
skip_leading_breaks(m1_reply *r)
{
	size_t n = 0;

	if (!r->at_start)
		return;
	while (n < r->pending.len && is_break(r->pending.data[n]))
		n++;
	m1_buf_consume(&r->pending, n);
	r->at_start = r->pending.len == 0;
}

static void
emit(m1_reply *r, m1w_channel channel, size_t n)
{
	m1_buf_append(&r->out[channel], r->pending.data, n);
	m1_buf_consume(&r->pending, n);
}

static void
enter(m1_reply *r, m1_reply_state state)
{
	r->state = state;
	r->at_start = true;
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
	if (left >= strlen(THINK_OPEN) && memcmp(r->pending.data + blank, THINK_OPEN, strlen(THINK_OPEN)) == 0)
	{
		m1_buf_consume(&r->pending, blank + strlen(THINK_OPEN));
		enter(r, M1_REPLY_REASONING);
		return true;
	}
	if (!final && left < strlen(THINK_OPEN) && (left == 0 || memcmp(r->pending.data + blank, THINK_OPEN, left) == 0))
		return false;
	enter(r, M1_REPLY_CONTENT);
	return true;
}

static bool
drain_reasoning(m1_reply *r, bool final)
{
	const size_t tag_len = strlen(THINK_CLOSE);
	const char *tag;
	size_t keep;

	skip_leading_breaks(r);
	if (r->pending.len == 0)
		return false;
	tag = memmem(r->pending.data, r->pending.len, THINK_CLOSE, tag_len);
	if (tag != NULL)
	{
		size_t before = (size_t) (tag - r->pending.data);
		size_t breaks = trailing_breaks(r->pending.data, before);

		emit(r, M1W_REASONING, before - breaks);
		m1_buf_consume(&r->pending, breaks + tag_len);
		enter(r, M1_REPLY_CONTENT);
		return true;
	}
	keep = final ? 0 : partial_tag(r->pending.data, r->pending.len, THINK_CLOSE, tag_len);
	keep += trailing_breaks(r->pending.data, r->pending.len - keep);
	emit(r, M1W_REASONING, r->pending.len - keep);
	return false;
}

/* The place of the earliest stop string in pending, or its length. */
static size_t
find_stop(const m1_reply *r)
{
	size_t earliest = r->pending.len;
	const char *stop = r->stop_text.data;

	for (size_t i = 0; i < r->n_stops; stop += r->stop_len[i++])
	{
		const char *at = memmem(r->pending.data, r->pending.len, stop, r->stop_len[i]);

		if (at != NULL && (size_t) (at - r->pending.data) < earliest)
			earliest = (size_t) (at - r->pending.data);
	}
	return earliest;
}

/* How much of the end of pending may be the beginning of a stop string. */
static size_t
partial_stop(const m1_reply *r)
{
	size_t longest = 0;
	const char *stop = r->stop_text.data;

	for (size_t i = 0; i < r->n_stops; stop += r->stop_len[i++])
	{
		size_t n = partial_tag(r->pending.data, r->pending.len, stop, r->stop_len[i]);

		longest = n > longest ? n : longest;
	}
	return longest;
}

static bool
drain_content(m1_reply *r, bool final)
{
	size_t stop;
	size_t keep;

	skip_leading_breaks(r);
	if (r->pending.len == 0)
		return false;
	stop = find_stop(r);
	if (stop < r->pending.len)
	{
		emit(r, M1W_CONTENT, stop - trailing_breaks(r->pending.data, stop));
		r->pending.len = 0;
		r->state = M1_REPLY_STOPPED;
		return false;
	}
	keep = final ? 0 : partial_stop(r);
	keep += trailing_breaks(r->pending.data, r->pending.len - keep);
	emit(r, M1W_CONTENT, r->pending.len - keep);
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
			case M1_REPLY_STOPPED:
				again = false;
				break;
		}
	return !r->pending.failed && !r->out[M1W_CONTENT].failed && !r->out[M1W_REASONING].failed;
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
m1_reply_at_line_start(const m1_reply *r)
{
	return r->last == '\n';
}

m1_slice
m1_reply_text(const m1_reply *r, m1w_channel channel)
{
	m1_slice text = {r->out[channel].data, r->out[channel].len};

	return text;
}

/* ---- tool calls ---- */

/* Adds the call that one line holds, if it holds one. */
static void
add_call(json_t *calls, const char *line, size_t len)
{
	json_t *call = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);

	if (json_is_string(json_object_get(call, "name")) && json_is_object(json_object_get(call, "arguments")))
		json_array_append(calls, call);
	json_decref(call);
}

static void
add_calls(json_t *calls, const char *at, const char *end)
{
	while (at < end)
	{
		const char *line_end = memchr(at, '\n', (size_t) (end - at));

		if (line_end == NULL)
			line_end = end;
		add_call(calls, at, (size_t) (line_end - at));
		at = line_end + 1;
	}
}

static int
append_dump(const char *buffer, size_t size, void *out)
{
	return m1_buf_append(out, buffer, size) ? 0 : -1;
}

bool
m1_reply_tool_calls(const m1_reply *r, m1_buf *json)
{
	const char *at = r->out[M1W_CONTENT].data;
	const char *end = at + r->out[M1W_CONTENT].len;
	json_t *calls = json_array();
	bool ok = calls != NULL;

	while (ok && at < end && (at = memmem(at, (size_t) (end - at), CALLS_OPEN, strlen(CALLS_OPEN))) != NULL)
	{
		const char *close;

		at += strlen(CALLS_OPEN);
		close = memmem(at, (size_t) (end - at), CALLS_CLOSE, strlen(CALLS_CLOSE));
		add_calls(calls, at, close != NULL ? close : end);
		at = close != NULL ? close + strlen(CALLS_CLOSE) : end;
	}
	if (ok && json_array_size(calls) > 0)
		ok = json_dump_callback(calls, append_dump, json, 0) == 0;
	json_decref(calls);
	return ok;
}
