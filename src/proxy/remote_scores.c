/* remote_scores.c - see remote_scores.h. */
#include "proxy/remote_scores.h"

#include <math.h>

#include "base/least.h"

/* Tokens of a choice, with the end of turn. */
static int
choice_tokens(const m1_remote *m)
{
	return (int) m1_choice_scores_tokens(m->request->scores, m->choice)->len + 1;
}

static int
tokens_at_once(const m1_remote *m, const m1_dialect *dialect)
{
	return m1_min_int(dialect->most_scored, choice_tokens(m) - m->scored);
}

/* All choices are done, or the only one is certain. */
static bool
choose(m1_remote *m)
{
	m1_request *r = m->request;

	m1_choice_scores_told(r->scores);
	m->error.code = M1_OK;
	if (m1_request_choose(r, &m->error) != M1_OK)
		m1_remote_fail(m, &m->error);
	return false;
}

bool
m1_remote_scores_go_on(m1_remote *m)
{
	m1_request *r = m->request;

	if (r->answer_start == 0)
		r->answer_start = (int) r->tokens.len;
	if (m1_choice_scores_count(r->scores) == 1)
	{
		m1_choice_scores_tell(r->scores, 0, 0);
		return choose(m);
	}
	if (m->choice < m1_choice_scores_count(r->scores))
		return true;
	return choose(m);
}

/* The tokens of the request, and those of the choice up to the last one that is asked about. */
static bool
lay_out(const m1_remote *m, int n_scored, m1_ids *tokens)
{
	const m1_request *r = m->request;
	const m1_ids *choice = m1_choice_scores_tokens(r->scores, m->choice);

	for (int i = 0; i < r->answer_start; i++)
		m1_ids_push(tokens, r->tokens.data[i]);
	for (int i = 0; i < m->scored + n_scored; i++)
		m1_ids_push(tokens, i < (int) choice->len ? choice->data[i] : m1_tokenizer_eos(r->tokenizer));
	return !tokens->failed;
}

static m1_score_ask
score_ask(const m1_remote *m, const m1_ids *tokens, int n_scored)
{
	return (m1_score_ask){
		.server = &m->server->facts,
		.request = m->request,
		.adapter = m->adapter,
		.tokens = tokens->data,
		.n_tokens = (int) tokens->len,
		.n_scored = n_scored,
	};
}

m1_status
m1_remote_write_score(m1_remote *m, const m1_dialect *dialect, m1_buf *body, m1_error *err)
{
	const int n = tokens_at_once(m, dialect);
	m1_ids tokens = {0};
	m1_score_ask ask;
	bool ok = lay_out(m, n, &tokens);

	ask = score_ask(m, &tokens, n);
	ok = ok && dialect->write_score(body, &ask);
	m1_ids_free(&tokens);
	return ok ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
}

void
m1_remote_read_score(m1_remote *m, m1_slice body)
{
	const m1_dialect *dialect = m1_dialect_of(m->server->facts.kind);
	const int n = tokens_at_once(m, dialect);
	m1_json_doc doc = {0};
	m1_ids tokens = {0};
	m1_score_ask ask;
	m1_error err;
	double logprob = 0;
	bool ok = lay_out(m, n, &tokens);

	ask = score_ask(m, &tokens, n);
	ok = ok && m1_json_parse(body, "the server's answer", NULL, &doc, &err) == M1_OK &&
		 dialect->read_score(doc.root, &ask, &logprob);
	m1_ids_free(&tokens);
	m1_json_free(&doc);
	/* not above 0, and none that a sum of them cannot hold */
	if (!ok || !isfinite(m->logprob + logprob) || logprob > 1e-6)
	{
		m1_fail(&m->error, M1_E_UNAVAILABLE, "the server does not tell how probable the choices are");
		m1_error_detail(&m->error, "The server is %.400s.", m->server->url);
		return;
	}
	m->logprob += logprob;
	m->scored += n;
	if (m->scored < choice_tokens(m))
		return;
	m1_choice_scores_tell(m->request->scores, m->choice, m->logprob);
	m->choice++;
	m->scored = 0;
	m->logprob = 0;
}
