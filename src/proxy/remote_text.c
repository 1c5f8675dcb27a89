/* remote_text.c - see remote_text.h. */
#include "proxy/remote_text.h"

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
fits(const m1_remote *m, const m1_buf *text)
{
	return text->len > 0 && m1_cursor_allows(m->request->cursor, (m1_slice){text->data, text->len});
}

/* A choice comes as a JSON string. JSON of a schema comes with the server's white space: it is written anew. */
static bool
write_form(const m1_remote *m, const m1_json *value, m1_buf *out)
{
	if (m1_json_is(value, M1_JSON_STRING))
	{
		const m1_slice text = m1_json_text(value);

		m1_buf_append(out, text.data, text.len);
		if (fits(m, out))
			return true;
		m1_buf_consume(out, out->len);
	}
	m1_json_write(out, value, M1_JSON_AS_GIVEN);
	return fits(m, out);
}

/* The answer with a form is whole. */
static bool
feed_form(m1_remote *m)
{
	m1_json_doc doc = {0};
	m1_buf text = {0};
	m1_error err;
	bool more = false;

	if (fits(m, &m->content))
		more = feed(m, (m1_slice){m->content.data, m->content.len});
	else if (m1_json_parse((m1_slice){m->content.data, m->content.len}, "the answer", NULL, &doc, &err) == M1_OK &&
			 write_form(m, doc.root, &text))
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
feed_content(m1_remote *m, m1_slice text)
{
	bool more = true;

	if (text.len == 0)
		return true;
	if (m->reasons)
		more = feed(m, m1_slice_of("\n" M1_THINK_CLOSED));
	m->reasons = false;
	if (m->request->cursor == NULL)
		return more && feed(m, text);
	return more && m1_buf_append(&m->content, text.data, text.len);
}

/* There is no asking for the rest: what has come is all. */
static void
end(m1_remote *m, const m1_told *told)
{
	m1_request *r = m->request;

	if (m->content.len > 0 && !r->ended && !feed_form(m) && m->error.code != M1_OK)
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
