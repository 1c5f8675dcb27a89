/* call_pieces.c - see call_pieces.h. */
#include "gateway/call_pieces.h"

#include <string.h>

enum
{
	BETWEEN, /* calls */
	HEAD,
	ARGUMENTS,
	TAIL, /* behind the arguments */
	LOST,
};

void
gw_call_pieces_free(gw_call_pieces *p)
{
	m1_buf_free(&p->head);
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Strings and brackets. Whether they fit together is the strict reader's to say. */
static void
follow(gw_call_pieces *p, char c)
{
	if (p->escaped)
		p->escaped = false;
	else if (p->in_string && c == '\\')
		p->escaped = true;
	else if (c == '"')
		p->in_string = !p->in_string;
	else if (!p->in_string && (c == '{' || c == '['))
		p->depth++;
	else if (!p->in_string && (c == '}' || c == ']'))
		p->depth--;
}

/* The head is that of a call if it is one with no arguments, once it is closed. */
static bool
tell_begin(gw_call_pieces *p, const gw_call_listener *listener, void *context)
{
	m1_json_doc doc = {0};
	m1_error err;
	const m1_json *name;
	bool ok;

	if (!m1_buf_puts(&p->head, "}}"))
		return false;
	ok = m1_json_parse((m1_slice){p->head.data, p->head.len}, "call", NULL, &doc, &err) == M1_OK;
	name = ok ? m1_json_get(doc.root, "name") : NULL;
	ok = m1_json_text(name).len > 0 && m1_json_size(doc.root) == 2 && m1_json_get(doc.root, "arguments") != NULL;
	if (ok)
		listener->begin(context, p->begun++, m1_json_text(name));
	m1_json_free(&doc);
	p->head.len = 0;
	return ok;
}

/* What the character says of where the text is; it has been followed. */
static int
next_state(gw_call_pieces *p, char c, const gw_call_listener *listener, void *context)
{
	switch (p->state)
	{
		case BETWEEN:
			if (is_blank(c))
				return BETWEEN;
			return c == '{' && m1_buf_append(&p->head, &c, 1) ? HEAD : LOST;
		case HEAD:
			if (!m1_buf_append(&p->head, &c, 1) || p->depth < 1)
				return LOST;
			if (p->depth == 1 || p->in_string)
				return HEAD;
			return tell_begin(p, listener, context) ? ARGUMENTS : LOST;
		case ARGUMENTS:
			return p->depth > 1 ? ARGUMENTS : TAIL;
		case TAIL:
			if (is_blank(c))
				return TAIL;
			p->ended += c == '}';
			return c == '}' ? BETWEEN : LOST;
		default:
			return LOST;
	}
}

void
gw_call_pieces_read(gw_call_pieces *p, m1_slice text, const gw_call_listener *listener, void *context)
{
	size_t from = 0;

	for (size_t i = 0; i < text.len && p->state != LOST; i++)
	{
		const int before = p->state;

		follow(p, text.data[i]);
		p->state = next_state(p, text.data[i], listener, context);
		if (before != ARGUMENTS && p->state == ARGUMENTS)
			from = i;
		if (before == ARGUMENTS && p->state == TAIL)
			listener->arguments(context, p->begun - 1, (m1_slice){text.data + from, i + 1 - from});
	}
	if (p->state == ARGUMENTS)
		listener->arguments(context, p->begun - 1, (m1_slice){text.data + from, text.len - from});
}

bool
gw_call_pieces_agree(const gw_call_pieces *p, const m1_json *calls)
{
	int n = 0;

	m1_json_foreach (calls, call)
	{
		if (n < p->begun && m1_json_get(call, "name") == NULL)
			return false;
		n++;
	}
	return p->begun == p->ended && n >= p->begun;
}
