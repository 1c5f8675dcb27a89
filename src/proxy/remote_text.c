/* remote_text.c - see remote_text.h. */
#define _GNU_SOURCE /* memmem */
#include "proxy/remote_text.h"

#include <string.h>

#include "base/least.h"
#include "proxy/remote_tokens.h"
#include "text/jsontext.h"
#include "text/markup.h"

static bool
feed(m1_remote *m, m1_slice text)
{
	m1_ids ids = {0};
	bool more = true;

	if (m1_tokenizer_encode(m->request->tokenizer, text, M1_ADDED_PLAIN, &ids, NULL, NULL, &m->error) != M1_OK)
		more = false;
	else
		m->error.code = M1_OK;
	for (size_t i = 0; i < ids.len && more; i++)
		more = m1_remote_take(m, ids.data[i], 0);
	m1_ids_free(&ids);
	return more;
}

/* Whether the whole answer has the form; what is written is it. */
static bool
fits(const m1_remote *m, m1_slice text)
{
	return text.len > 0 && m1_cursor_allows(m->request->cursor, text);
}

/* A choice comes as a JSON string. JSON of a schema comes with the server's white space: it is written anew. */
static bool
write_form(const m1_remote *m, const m1_json *value, m1_buf *out)
{
	if (m1_json_is(value, M1_JSON_STRING))
	{
		const m1_slice text = m1_json_text(value);

		if (fits(m, text))
			return m1_buf_append(out, text.data, text.len);
	}
	m1_json_write(out, value, M1_JSON_AS_GIVEN);
	return fits(m, (m1_slice){out->data, out->len});
}

static bool
feed_form(m1_remote *m, m1_slice answer)
{
	m1_json_doc doc = {0};
	m1_buf text = {0};
	m1_error err;
	bool more = false;

	if (fits(m, answer))
		more = feed(m, answer);
	else if (m1_json_parse(answer, "the answer", NULL, &doc, &err) == M1_OK && write_form(m, doc.root, &text))
		more = feed(m, (m1_slice){text.data, text.len});
	else
		m1_fail(&m->error, M1_E_UNAVAILABLE, "the server's answer breaks the constraint that it was told");
	m1_json_free(&doc);
	m1_buf_free(&text);
	return more;
}

/* Reasoning that the server's parser has taken out gets its tags back. Where none was wanted, it is left out. */
static bool
feed_reasoning(m1_remote *m, m1_slice text)
{
	bool more = true;

	if (text.len == 0 || m->request->thinking_budget == 0)
		return true;
	if (!m->reasons)
		more = feed(m, m1_slice_of(M1_THINK_OPEN "\n"));
	m->reasons = true;
	return more && feed(m, text);
}

static bool
close_reasoning(m1_remote *m)
{
	const bool reasons = m->reasons;

	m->reasons = false;
	return !reasons || feed(m, m1_slice_of("\n" M1_THINK_CLOSED));
}

static m1_slice
without_breaks(m1_slice text)
{
	for (; text.len > 0 && *text.data == '\n'; text.len--)
		text.data++;
	while (text.len > 0 && text.data[text.len - 1] == '\n')
		text.len--;
	return text;
}

/*
 * A server without a parser leaves the reasoning at the beginning of the content. false: where the answer begins is not
 * known yet; of a whole content, it is.
 */
static bool
split(m1_slice content, bool is_whole, m1_slice *reasoning, m1_slice *answer)
{
	const size_t tag = strlen(M1_THINK_OPEN);
	const char *closed;
	m1_slice text = content;

	*reasoning = (m1_slice){0};
	*answer = content;
	for (; text.len > 0 && strchr(" \t\r\n", *text.data) != NULL; text.len--)
		text.data++;
	if (memcmp(text.data, M1_THINK_OPEN, m1_min_size(text.len, tag)) != 0)
		return true;
	if (text.len < tag)
		return is_whole;
	text = (m1_slice){text.data + tag, text.len - tag};
	closed = memmem(text.data, text.len, M1_THINK_CLOSE, strlen(M1_THINK_CLOSE));
	*answer = (m1_slice){0};
	if (closed != NULL)
	{
		*answer = (m1_slice){closed + strlen(M1_THINK_CLOSE), 0};
		answer->len = (size_t) (text.data + text.len - answer->data);
		text.len = (size_t) (closed - text.data);
	}
	for (; answer->len > 0 && *answer->data == '\n'; answer->len--)
		answer->data++;
	*reasoning = without_breaks(text);
	return is_whole || answer->len > 0;
}

/* Content is kept while what of it is wanted is not known: all of an answer with a form, or where none may reason. */
static bool
feed_content(m1_remote *m, m1_slice text)
{
	const bool has_form = m->request->cursor != NULL;
	m1_slice reasoning;
	m1_slice answer;

	if (text.len == 0)
		return true;
	if (!close_reasoning(m))
		return false;
	if ((!has_form && m->request->thinking_budget != 0) || m->answers)
		return feed(m, text);
	if (!m1_buf_append(&m->content, text.data, text.len) || has_form ||
		!split((m1_slice){m->content.data, m->content.len}, false, &reasoning, &answer))
		return true;
	m->answers = true;
	return feed(m, answer);
}

/* There is no more content than this. */
static bool
feed_kept(m1_remote *m)
{
	m1_slice reasoning;
	m1_slice answer;

	if (m->content.len == 0 || m->answers)
		return true;
	split((m1_slice){m->content.data, m->content.len}, true, &reasoning, &answer);
	if (m->request->cursor == NULL)
		return feed(m, answer);
	return feed_reasoning(m, reasoning) && close_reasoning(m) && feed_form(m, answer);
}

/* There is no asking for the rest: what has come is all. */
static void
end(m1_remote *m, const m1_told *told)
{
	m1_request *r = m->request;

	if (!r->ended && !feed_kept(m) && m->error.code != M1_OK)
		return;
	if (told->end_of_turn && !r->ended)
		m1_remote_take(m, m1_tokenizer_eos(r->tokenizer), 0);
	if (!r->ended && m->error.code == M1_OK)
	{
		r->ended = true;
		r->finish = M1W_FINISH_LENGTH;
	}
}

bool
m1_remote_take_text(m1_remote *m, const m1_told *told)
{
	const bool more = feed_reasoning(m, told->reasoning) && feed_content(m, told->text);

	if (told->finished && m->error.code == M1_OK && !m->request->ended)
		end(m, told);
	return more && !told->finished;
}
