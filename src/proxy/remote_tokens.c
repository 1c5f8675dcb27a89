/* remote_tokens.c - see remote_tokens.h. */
#include "proxy/remote_tokens.h"

#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"

/* A row of the vocabulary that is no token: a server may draw it, and the next stretch draws again. */
static bool
is_dead(const m1_request *r, int32_t id)
{
	return r->kind == M1_REQUEST_CHAT && m1_tokenizer_piece(r->tokenizer, id).data == NULL &&
		   !m1_tokenizer_is_special(r->tokenizer, id);
}

/* Of a model with another vocabulary, that is. */
static void
refuse_token(m1_remote *m, int32_t id)
{
	m->foreign = true;
	m1_fail(&m->error, M1_E_UNAVAILABLE, "the server sent token %d, which the model's tokenizer does not have", id);
	m1_error_detail(&m->error, "The server is %.400s.", m->server->url);
	m1_error_hint(&m->error, "{model} must be the folder of the model that the server runs.");
}

/* The form of the answer says no. Without a grammar, the server could not know. */
static void
refuse_form(m1_remote *m, int32_t id)
{
	m->wants_grammar = true;
	if (!m->by_grammar)
		return;
	m1_fail(&m->error, M1_E_UNAVAILABLE, "the server's answer breaks the constraint that it was told");
	m1_error_detail(&m->error, "Token %d of %.300s cannot follow.", id, m->server->url);
}

/* What the engine has read of it leads away from what the server goes on with. One that takes texts is never led. */
static bool
turns_off(m1_remote *m, m1_reply_state before)
{
	m1_request *r = m->request;

	if (!m1_dialect_of(m->server->facts.kind)->takes_ids)
		return false;
	if (r->tokens.len != m->asked + (size_t) m->accepted)
		return true;
	if (r->cursor == NULL || m->by_grammar || before != M1_REPLY_REASONING ||
		m1_reply_where(r->reply) == M1_REPLY_REASONING)
		return false;
	m->wants_grammar = true;
	return true;
}

static bool
accept(m1_remote *m, m1b_pick pick)
{
	m1_request *r = m->request;
	const m1_reply_state before = r->reply != NULL ? m1_reply_where(r->reply) : M1_REPLY_CONTENT;

	m->accepted++;
	if (m1_request_accept(r, pick, &m->error) != M1_OK || r->ended)
		return false;
	if (m1_request_at_scored_answer(r))
	{
		m->scores = true;
		return false;
	}
	return !turns_off(m, before);
}

static bool
ends_inside_character(m1_slice text, bool *failed)
{
	m1_utf8 state = {0};
	m1_buf whole = {0};

	if (text.len == 0 || (text.data[text.len - 1] & 0x80) == 0)
		return false;
	*failed = !m1_utf8_push(&state, text, &whole);
	m1_buf_free(&whole);
	return state.n_pending > 0;
}

/* The form lets this token follow those that are held. */
static bool
allows(m1_remote *m, int32_t id)
{
	m1_request *r = m->request;
	const size_t before = m->held_text.len;
	m1_slice piece;
	bool ok;

	if (before == 0)
		return m1_request_allows(r, id);
	piece = m1_tokenizer_piece(r->tokenizer, id);
	if (m1_tokenizer_is_special(r->tokenizer, id) || !m1_buf_append(&m->held_text, piece.data, piece.len))
		return false;
	ok = m1_cursor_allows(r->cursor, (m1_slice){m->held_text.data, m->held_text.len});
	m->held_text.len = before;
	return ok;
}

void
m1_remote_drop_held(m1_remote *m)
{
	m->held.len = 0;
	m->held_text.len = 0;
}

/* Reads what is held, in order; what comes behind a turn is dropped. */
static bool
accept_held(m1_remote *m)
{
	const size_t n = m->held.len / sizeof(m1b_pick);
	bool more = true;

	for (size_t i = 0; i < n && more; i++)
	{
		m1b_pick pick;

		memcpy(&pick, m->held.data + i * sizeof pick, sizeof pick);
		more = accept(m, pick);
	}
	m1_remote_drop_held(m);
	return more;
}

/*
 * Where the reply has a form, tokens are read when the character that they end in is whole, or the reply: a form can
 * be told to a server in front of a character, and not inside of it.
 */
static bool
hold(m1_remote *m, m1b_pick pick)
{
	m1_request *r = m->request;
	const m1_slice piece = m1_tokenizer_piece(r->tokenizer, pick.id);
	bool failed = false;
	bool inside;

	m1_buf_append(&m->held, &pick, sizeof pick);
	m1_buf_append(&m->held_text, piece.data, piece.len);
	inside = ends_inside_character((m1_slice){m->held_text.data, m->held_text.len}, &failed);
	if (failed || m->held.failed || m->held_text.failed)
	{
		m1_fail(&m->error, M1_E_NO_MEMORY, "out of memory for the reply");
		return false;
	}
	if (inside && r->completion_tokens + (int) (m->held.len / sizeof pick) < r->max_tokens)
		return true;
	return accept_held(m);
}

bool
m1_remote_take(m1_remote *m, int32_t id, float probability)
{
	m1_request *r = m->request;
	const m1b_pick pick = {.id = id, .probability = probability};

	if (id < 0 || id >= m->server->all->options.model->config.vocab_size)
	{
		refuse_token(m, id);
		return false;
	}
	if (is_dead(r, id))
		return false;
	if (!allows(m, id))
	{
		refuse_form(m, id);
		return false;
	}
	if (r->prefilled_ms == 0)
	{
		r->prefilled_ms = m1_now_ms();
		r->fed = r->prompt_tokens;
	}
	return r->cursor == NULL ? accept(m, pick) : hold(m, pick);
}
