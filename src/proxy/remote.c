/* remote.c - see remote.h. */
#include "proxy/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/least.h"
#include "engine/events.h"
#include "proxy/remote_scores.h"
#include "proxy/remote_text.h"
#include "proxy/remote_tokens.h"

#define PROGRESS_TOKENS 16 /* between two progress events */
#define MAX_MOVES 6
#define MAX_FRUITLESS 3
#define FIRST_PAUSE_MS 100.0 /* before a server is asked again what it has failed at; then twice that, and so on */
#define LINGER_MS 1000.0

#define WHOLE_TOKENS 16 /* of a stretch that comes as one answer: a few characters */

/* What is asked for beyond the budget of reasoning: the server ends the stretch soon after we would. */
#define BUDGET_SLACK 8

/* ---- life ---- */

m1_remote *
m1_remote_create(m1_request *r, const m1_engine_events *events, m1_calls *calls)
{
	m1_remote *m = calloc(1, sizeof *m);

	if (m == NULL)
		return NULL;
	m->request = r;
	m->events = events;
	m->calls = calls;
	m->waits_since_ms = m1_now_ms();
	return m;
}

void
m1_remote_free(m1_remote *m)
{
	if (m->call != NULL)
	{
		m->server->in_flight--;
		m1_call_drop(m->call);
	}
	m1_request_free(m->request);
	m1_buf_free(&m->content);
	m1_buf_free(&m->held);
	m1_buf_free(&m->held_text);
	free(m);
}

void
m1_remote_fail(m1_remote *m, const m1_error *error)
{
	m1_event_failed(m->events, m->request, error);
	m->over = true;
}

static void
finish(m1_remote *m)
{
	if (m->request->prefilled_ms == 0)
		m->request->prefilled_ms = m1_now_ms();
	m1_event_done(m->events, m->request);
	m->over = true;
}

/* ---- events ---- */

/*
 * Tokens that were not sent, because they end inside of a character, are found again in its text. false: they are not,
 * as at the end of a stretch, where the character has no end, or in a continuation of ids, which has no text.
 */
static bool
find_lost(const m1_remote *m, m1_told *told)
{
	const m1_request *r = m->request;
	const int new = told->generated - m->known;
	m1_ids found = {0};
	m1_error err;
	bool all;

	/* the end of turn may be counted and not sent */
	if (new - (told->end_of_turn && r->tokenizer != NULL) <= (int) told->ids.len)
		return true;
	if (told->text.len == 0 || r->tokenizer == NULL)
		return false;
	all = m1_tokenizer_encode(r->tokenizer, told->text, M1_ADDED_PLAIN, &found, NULL, NULL, &err) == M1_OK &&
		  (int) found.len == new;
	if (all)
	{
		m1_ids_free(&told->ids);
		told->ids = found;
	}
	else
		m1_ids_free(&found);
	return all;
}

static bool
take_ids(m1_remote *m, m1_told *told)
{
	if (!find_lost(m, told))
	{
		m->wants_whole = true;
		return false;
	}
	m->known = told->generated > 0 ? told->generated : m->known + (int) told->ids.len;
	for (size_t i = 0; i < told->ids.len; i++)
	{
		const int32_t id = told->ids.data[i];

		if (!m1_remote_take(m, id, i + 1 == told->ids.len ? told->probability : 0))
			return false;
	}
	return true;
}

/* The end of a turn may come as a token or without one. A continuation of ids goes on behind it. */
static bool
take_end(m1_remote *m, const m1_told *told)
{
	const m1_request *r = m->request;
	const int32_t last = r->tokens.data[r->tokens.len - 1];

	if (!told->finished || !told->end_of_turn || r->tokenizer == NULL || last == m1_tokenizer_eos(r->tokenizer))
		return !told->finished;
	m1_remote_take(m, m1_tokenizer_eos(r->tokenizer), 0);
	return false;
}

static void
note_prompt(m1_remote *m, const m1_told *told)
{
	m1_request *r = m->request;

	if (told->cached > 0 && m->asked == (size_t) r->prompt_tokens)
		r->cached_tokens = m1_min_int(told->cached, r->prompt_tokens);
	if (r->completion_tokens == 0 && told->prefilled > r->fed && told->prefilled < r->prompt_tokens)
	{
		r->fed = told->prefilled;
		m1_event_progress(m->events, r);
	}
}

static void
tell(m1_remote *m)
{
	m1_request *r = m->request;

	if (r->ended || m->error.code != M1_OK)
		return;
	if (r->completion_tokens > 0 && (r->reported == 0 || r->completion_tokens - r->reported >= PROGRESS_TOKENS))
		m1_event_progress(m->events, r);
	if (r->kind == M1_REQUEST_CHAT)
		m1_event_deltas(m->events, r);
}

static void
note_failure(m1_remote *m, m1_slice why)
{
	m1_fail(&m->error, M1_E_UNAVAILABLE, "the server gave the request up");
	m1_error_detail(&m->error, "%.150s: %.*s", m->server->url, (int) m1_min_size(why.len, 300), why.data);
}

static bool
use(m1_remote *m, m1_told *told)
{
	bool more = true;

	if (told->failure.len > 0)
	{
		note_failure(m, told->failure);
		return false;
	}
	note_prompt(m, told);
	m->finished = told->finished;
	m->finished_ms = m1_now_ms();
	if (m1_dialect_of(m->server->facts.kind)->takes_ids)
		more = take_ids(m, told) && take_end(m, told);
	else
		more = m1_remote_take_text(m, told);
	tell(m);
	/* what a server says behind its last token is of use: how much of the prompt it had cached */
	return m->finished ? m->error.code == M1_OK : more;
}

static bool
on_event(void *context, m1_slice json)
{
	m1_remote *m = context;
	const m1_dialect *dialect = m1_dialect_of(m->server->facts.kind);
	m1_told told = {.cached = -1, .prefilled = -1};
	m1_json_doc doc = {0};
	m1_error err;
	bool more;

	if (m->is_score)
	{
		note_failure(m, m1_slice_of("it sent a stream, and was asked for probabilities"));
		return false;
	}
	if (m1_json_parse(json, "the server's event", NULL, &doc, &err) != M1_OK ||
		!dialect->read_event(doc.root, m->known, &told))
	{
		note_failure(m, m1_slice_of("it sent an event that makes no sense"));
		more = false;
	}
	else
		more = m->finished ? (note_prompt(m, &told), true) : use(m, &told);
	m1_ids_free(&told.ids);
	m1_json_free(&doc);
	return more;
}

static bool
waits(void *context)
{
	return ((m1_remote *) context)->request->paused;
}

/* ---- the end of a call ---- */

/* What has been shown cannot be taken back; all else may begin again, where it was. */
static bool
may_move(const m1_remote *m)
{
	const m1_request *r = m->request;

	/* a server that takes texts cannot go on behind what has been read */
	if (!m1_dialect_of(m->server->facts.kind)->takes_ids && r->completion_tokens > 0)
		return false;
	return m->moves < MAX_MOVES &&
		   (!r->stream || r->sent[M1_CONTENT] + r->sent[M1_REASONING] + r->sent[M1_TOOL_CALLS] == 0);
}

static void
wait_for_server(m1_remote *m)
{
	m->waits_since_ms = m1_now_ms();
}

/* Another server is asked, or the same one in a while. */
static void
begin_again(m1_remote *m)
{
	m->left = m->server;
	m->again_ms = m1_now_ms() + FIRST_PAUSE_MS * (1 << m->moves);
	m->moves++;
	wait_for_server(m);
}

static void
move(m1_remote *m, const char *what, m1_slice why)
{
	m1_error error;

	if (may_move(m))
	{
		begin_again(m);
		return;
	}
	m1_fail(&error, M1_E_UNAVAILABLE, "%s", what);
	m1_error_detail(&error, "%.300s: %.*s", m->server->url, (int) m1_min_size(why.len, 180), why.data);
	m1_error_hint(&error, "Try again.");
	m1_remote_fail(m, &error);
}

/* What an answer that is no reply says: the message of an error, or how it begins. Lives as long as doc and body. */
static m1_slice
told_instead(m1_slice body, m1_json_doc *doc)
{
	m1_error err;
	m1_slice message = {0};

	if (m1_json_parse(body, "the refusal", NULL, doc, &err) == M1_OK)
		message = m1_told_message(doc->root);
	return message.len > 0 ? message : body;
}

/*
 * The request is not at fault: the server has been started anew with another key, name or model. It is asked again what
 * it is.
 */
static bool
is_passing(long status)
{
	return status == 401 || status == 403 || status == 404;
}

static void
refused(m1_remote *m, const m1_call_result *result)
{
	m1_json_doc doc = {0};
	m1_error error;
	const bool passing = is_passing(result->status);
	const m1_slice text = told_instead(result->body, &doc);

	if (passing)
		m1_server_refuses(m->server, result->status);
	if (passing && may_move(m))
	{
		m1_json_free(&doc);
		begin_again(m);
		return;
	}
	m1_fail(&error, passing ? M1_E_UNAVAILABLE : M1_E_UNSUPPORTED,
			"the server refused the request with HTTP status %ld", result->status);
	m1_error_detail(&error, "%.150s: %.*s", m->server->url, (int) m1_min_size(text.len, 330), text.data);
	if (result->status == 401 || result->status == 403)
		m1_error_hint(&error, "See {engine_api_key_file}.");
	m1_json_free(&doc);
	m1_remote_fail(m, &error);
}

/* It waits, for another server or for this one, but not for ever. */
static void
too_busy(m1_remote *m, const m1_call_result *result, double now)
{
	m1_json_doc doc = {0};
	m1_error error;
	const m1_slice text = told_instead(result->body, &doc);

	m1_server_busy(m->server, result->retry_after, now);
	if (m->busy_since_ms == 0)
		m->busy_since_ms = now;
	if (now - m->busy_since_ms < m->server->all->options.patience_ms)
		wait_for_server(m);
	else
	{
		m1_fail(&error, M1_E_UNAVAILABLE, "the server has been too busy for the request for %.0f s",
				(now - m->busy_since_ms) / 1e3);
		m1_error_detail(&error, "%.150s: %.*s", m->server->url, (int) m1_min_size(text.len, 330), text.data);
		m1_error_hint(&error, "Try again later; {engine_timeout} says how long a request waits.");
		m1_remote_fail(m, &error);
	}
	m1_json_free(&doc);
}

static void
move_instead(m1_remote *m, const char *what, const char *why, const m1_call_result *result)
{
	m1_json_doc doc = {0};
	const m1_slice text = told_instead(result->body, &doc);

	move(m, what, text.len > 0 ? text : m1_slice_of(why));
	m1_json_free(&doc);
}

/* A stretch has ended as it should. */
static void
go_on(m1_remote *m, const m1_call_result *result)
{
	m1_request *r = m->request;
	const bool has_body = result->end == M1_CALL_ANSWERED && result->body.len > 0;
	const bool is_score = m->is_score && has_body;

	if (is_score)
		m1_remote_read_score(m, result->body);
	else if (m->whole && has_body)
		on_event(m, result->body);
	if (!is_score && !m->finished && result->end == M1_CALL_ANSWERED)
	{
		move_instead(m, "the server stopped in the middle of the reply", "the stream ended without a last event",
					 result);
		return;
	}
	if (m->foreign)
		m1_server_reject(m->server, m->error.code, m->error.message, m->error.hint);
	else if (m->error.code == M1_OK)
		m1_server_answered(m->server);
	m->foreign = false;
	m->fruitless = m->accepted > 0 || is_score ? 0 : m->fruitless + 1;
	if (m->accepted > 0)
		m->busy_since_ms = 0;
	if (m->error.code == M1_OK && !r->ended && m->fruitless >= MAX_FRUITLESS)
		note_failure(m, m1_slice_of("it ends replies without a token"));
	if (m->error.code == M1_E_UNAVAILABLE && may_move(m))
	{
		m->error.code = M1_OK;
		begin_again(m);
	}
	else if (m->error.code != M1_OK)
		m1_remote_fail(m, &m->error);
	else if (r->ended)
		finish(m);
	else
		wait_for_server(m);
}

static void
on_over(const m1_call_result *result)
{
	m1_remote *m = result->context;
	const double now = m1_now_ms();

	m->call = NULL;
	m->server->in_flight--;
	if (m->finished)
	{
		go_on(m, &(m1_call_result){.end = M1_CALL_LEFT});
		return;
	}
	switch (result->end)
	{
		case M1_CALL_ANSWERED:
		case M1_CALL_LEFT:
			go_on(m, result);
			break;
		case M1_CALL_REFUSED:
			refused(m, result);
			break;
		case M1_CALL_BUSY:
			too_busy(m, result, now);
			break;
		case M1_CALL_FAILED:
			move_instead(m, "the server failed", "it answers with an internal error", result);
			break;
		case M1_CALL_UNREACHABLE:
		case M1_CALL_BROKEN:
			m1_server_failed(m->server, result->why, now);
			move(m, "the server went away in the middle of the reply", m1_slice_of(result->why));
			break;
	}
}

bool
m1_remote_lingers(const m1_remote *m)
{
	return m->finished && m->call != NULL && !m->over;
}

void
m1_remote_look(m1_remote *m, double now)
{
	if (!m1_remote_lingers(m) || now - m->finished_ms < LINGER_MS)
		return;
	m1_call_drop(m->call);
	on_over(&(m1_call_result){.end = M1_CALL_LEFT, .context = m});
}

static const m1_call_handler handler = {.event = on_event, .waits = waits, .over = on_over};

/* ---- asking ---- */

static int
tokens_to_ask(const m1_request *r)
{
	const int left = r->max_tokens - r->completion_tokens;
	const bool reasons = r->reply != NULL && m1_reply_where(r->reply) <= M1_REPLY_REASONING;

	if (r->kind == M1_REQUEST_IDS || r->thinking_budget < 0 || !reasons)
		return left;
	return m1_min_int(left, r->thinking_budget - r->reasoning_tokens + BUDGET_SLACK);
}

/* Where the answer may have begun, the server is told its form; before, reasoning is free. */
static bool
is_by_grammar(const m1_remote *m)
{
	const m1_request *r = m->request;

	return r->cursor != NULL && (m->wants_grammar || (m1_reply_where(r->reply) != M1_REPLY_OPENING &&
													  m1_reply_where(r->reply) != M1_REPLY_REASONING));
}

static m1_status
write_ask(m1_remote *m, const m1_dialect *dialect, m1_buf *body, m1_error *err)
{
	m1_buf grammar = {0};
	m1_ask ask = {
		.server = &m->server->facts,
		.request = m->request,
		.adapter = m->adapter,
		.n_tokens = m->whole ? m1_min_int(WHOLE_TOKENS, tokens_to_ask(m->request)) : tokens_to_ask(m->request),
		.whole = m->whole,
		.stretch = m->stretches,
		.chat = {m->request->chat.data, m->request->chat.len},
	};
	m1_status status = M1_OK;

	m->by_grammar = dialect->takes_ids && is_by_grammar(m);
	if (m->by_grammar)
		status = m1_cursor_write_grammar(m->request->cursor, &grammar, err);
	ask.grammar = (m1_slice){grammar.data, grammar.len};
	if (status == M1_OK && !dialect->write_ask(body, &ask))
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request");
	m1_buf_free(&grammar);
	return status;
}

static void
begin_stretch(m1_remote *m)
{
	m1_request *r = m->request;

	m->asked = r->tokens.len;
	m->accepted = 0;
	m->known = 0;
	m->stretches++;
	m->finished = false;
	m->whole = m->wants_whole;
	m->wants_whole = false;
	m->reasons = false;
	m->content.len = 0;
	m1_remote_drop_held(m);
	m->answers = false;
	if (r->started_ms != 0)
		return;
	r->started_ms = m1_now_ms(); /* not before it was submitted, by any clock that was read earlier */
	m1_event_progress(m->events, r);
}

void
m1_remote_ask(m1_remote *m, m1_server *server)
{
	const m1_dialect *dialect = m1_dialect_of(server->facts.kind);
	char url[M1_MAX_URL + 32];
	m1_buf body = {0};
	m1_error err;
	m1_status status;

	m->server = server;
	m->left = NULL;
	begin_stretch(m);
	if (m->request->answer_start == 0 && m1_request_at_scored_answer(m->request))
		m->scores = true;
	m->is_score = m->scores;
	if (m->scores && !m1_remote_scores_go_on(m))
	{
		finish(m);
		return;
	}
	status = m->scores ? m1_remote_write_score(m, dialect, &body, &err) : write_ask(m, dialect, &body, &err);
	snprintf(url, sizeof url, "%s%s", server->url, dialect->path);
	if (status == M1_OK &&
		(m->call = m1_call_start(m->calls, url, (m1_slice){body.data, body.len}, &handler, m)) == NULL)
		status = m1_fail(&err, M1_E_NO_MEMORY, "out of memory for a call");
	m1_buf_free(&body);
	if (status == M1_OK)
		server->in_flight++;
	else
		m1_remote_fail(m, &err);
}
