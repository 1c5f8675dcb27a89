/*
 * answer.c
 *	  What the engine says, looked at as if it were hostile: the one place where
 *	  its values are compared with what was asked and with the model. relay.c
 *	  passes on, counts and shows only what has been through here, so backends
 *	  believe what they receive. An engine that says what cannot be is ended, and
 *	  a new one started.
 */
#include "pg/worker/answer.h"
#include "pg/shared.h"
#include "pg/usage/usage.h"

#include "mb/pg_wchar.h"

#define NOT_UTF8 "It sent text that is not UTF-8."

/* Milliseconds: a request's age is less than ten years. */
#define LONGEST_MS (10 * 365.0 * 86400 * 1000)

void
m1pg_note_asked(M1Asked *asked, m1w_type type, const char *payload, Size len)
{
	m1w_generate generate;
	m1w_text	words;
	m1_error	error;

	memset(asked, 0, sizeof *asked);
	asked->type = type;
	if (type == M1W_TOKENIZE && m1w_decode_text(payload, len, &words, &error) == M1_OK)
		asked->text_len = words.text.len;
	if (type == M1W_GENERATE && m1w_decode_generate(payload, len, &generate, &error) == M1_OK)
	{
		asked->stream = generate.stream;
		asked->ids = generate.ids.len > 0;
		asked->scored = generate.score_choices;
	}
}

/* Only the worker writes what there is of the model, so it reads without the lock. */
static const M1ModelInfo *
model(void)
{
	return &m1pg_shared->model;
}

/* ---- values ---- */

static bool
is_text(m1_slice s)
{
	return s.len == 0 || pg_verify_mbstr(PG_UTF8, s.data, (int) s.len, true);
}

static bool
are_ids(m1w_id_slice ids)
{
	for (size_t i = 0; i < ids.len; i++)
		if (m1w_id_at(ids, i) < 0 || m1w_id_at(ids, i) >= model()->vocab)
			return false;
	return true;
}

/* A number of tokens of which `part` is a part; no request has more than the context. */
static bool
is_count(int32 part, int32 whole)
{
	return part >= 0 && part <= whole && whole <= model()->context;
}

static bool
is_time(double ms)
{
	return ms >= 0 && ms <= LONGEST_MS;
}

static bool
are_logprobs(m1_slice values)
{
	for (size_t i = 0; i < values.len / sizeof(double); i++)
		if (!(m1w_double_at(values, i) <= 1e-9))	/* NaN is not, either */
			return false;
	return true;
}

/* Each token ends where the one before it does or later, and none behind the text. */
static bool
are_ends(m1w_id_slice ends, Size text_len)
{
	int32		before = 0;

	for (size_t i = 0; i < ends.len; i++)
	{
		int32		end = m1w_id_at(ends, i);

		if (end < before || (Size) end > text_len)
			return false;
		before = end;
	}
	return true;
}

/* ---- messages ---- */

/* It never goes back, and a prompt stays as long as it is. */
static bool
goes_on(const M1Asked *asked, const m1w_progress *p)
{
	const m1w_progress *last = &asked->progress;

	return !asked->has_progress ||
		(p->phase >= last->phase && p->prompt_tokens == last->prompt_tokens &&
		 p->prefilled >= last->prefilled && p->generated >= last->generated);
}

static const char *
judge_progress(M1Asked *asked, const m1w_progress *p)
{
	if (!is_count(p->prefilled, p->prompt_tokens) || !is_count(p->generated, model()->context))
		return "It sent progress with counts of tokens that cannot be.";
	if (!goes_on(asked, p))
		return "It sent progress that goes back.";
	asked->has_progress = true;
	asked->progress = *p;
	return NULL;
}

static const char *
judge_delta(const M1Asked *asked, const m1w_delta *delta)
{
	if (!asked->stream)
		return "It sent a reply in pieces that was asked for whole.";
	return is_text(delta->text) ? NULL : NOT_UTF8;
}

static const char *
judge_done(const M1Asked *asked, const m1w_done *done)
{
	if (!is_text(done->content) || !is_text(done->reasoning) || !is_text(done->tool_calls))
		return NOT_UTF8;
	if (!is_count(done->cached_tokens, done->prompt_tokens) ||
		!is_count(done->reasoning_tokens, done->completion_tokens))
		return "It sent a reply with counts of tokens that cannot be.";
	if (asked->has_progress && (done->prompt_tokens != asked->progress.prompt_tokens ||
								done->completion_tokens < asked->progress.generated))
		return "It sent a reply with other counts of tokens than its progress.";
	if (!is_time(done->queue_ms) || !is_time(done->prefill_ms) || !is_time(done->decode_ms))
		return "It sent a reply with times that cannot be.";
	if (!are_ids(done->ids) || (done->ids.len > 0 && !asked->ids))
		return "It sent token ids that the model does not have.";
	if (!are_logprobs(done->choice_logprobs) || (done->choice_logprobs.len > 0 && !asked->scored))
		return "It sent probabilities that cannot be.";
	return NULL;
}

static const char *
judge_tokens(const M1Asked *asked, const m1w_tokens *tokens)
{
	if (!are_ids(tokens->ids))
		return "It sent token ids that the model does not have.";
	if (tokens->ends.len != tokens->ids.len || !are_ends(tokens->ends, asked->text_len))
		return "It sent tokens that end outside of their text.";
	return NULL;
}

static const char *
judge_vector(const m1w_vector *vector)
{
	if (vector->values.len / sizeof(float) != (Size) model()->vocab)
		return "It sent logits that are not as many as the model has tokens.";
	return NULL;
}

static bool
answers(m1w_type type, m1w_type question)
{
	switch (type)
	{
		case M1W_ERROR:
			return true;
		case M1W_PROGRESS:
			return m1pg_runs_model(question);
		case M1W_DELTA:
		case M1W_DONE:
			return question == M1W_GENERATE;
		case M1W_TOKENS:
			return question == M1W_TOKENIZE;
		case M1W_TEXT:
			return question == M1W_DETOKENIZE;
		case M1W_VECTOR:
			return question == M1W_LOGITS;
		default:
			return false;
	}
}

const char *
m1pg_judge_answer(M1Asked *asked, m1w_type type, const char *payload, Size len)
{
	union
	{
		m1w_progress progress;
		m1w_delta	delta;
		m1w_done	done;
		m1w_tokens	tokens;
		m1w_text	words;
		m1w_vector	vector;
		m1w_failure failure;
	}			m;
	m1_error	error;

	if (!answers(type, asked->type))
		return "It sent an answer to another question.";
	switch (type)
	{
		case M1W_PROGRESS:
			if (m1w_decode_progress(payload, len, &m.progress, &error) == M1_OK)
				return judge_progress(asked, &m.progress);
			break;
		case M1W_DELTA:
			if (m1w_decode_delta(payload, len, &m.delta, &error) == M1_OK)
				return judge_delta(asked, &m.delta);
			break;
		case M1W_DONE:
			if (m1w_decode_done(payload, len, &m.done, &error) == M1_OK)
				return judge_done(asked, &m.done);
			break;
		case M1W_TOKENS:
			if (m1w_decode_tokens(payload, len, &m.tokens, &error) == M1_OK)
				return judge_tokens(asked, &m.tokens);
			break;
		case M1W_TEXT:
			if (m1w_decode_text(payload, len, &m.words, &error) == M1_OK)
				return is_text(m.words.text) ? NULL : NOT_UTF8;
			break;
		case M1W_VECTOR:
			if (m1w_decode_vector(payload, len, &m.vector, &error) == M1_OK)
				return judge_vector(&m.vector);
			break;
		default:
			if (m1w_decode_failure(payload, len, &m.failure, &error) == M1_OK)
				return NULL;
			break;
	}
	return "It sent a frame that makes no sense.";
}

const char *
m1pg_judge_ready(const m1w_ready *r)
{
	/* more tokens than any model has, and than an answer's frame could hold logits for */
	const int	most_tokens = M1W_MAX_PAYLOAD / sizeof(float);

	if (r->context < 1 || r->context > PG_INT32_MAX / 2 || r->vocab < 1 || r->vocab > most_tokens || r->layers < 1 ||
		r->experts < 0 || r->parameters > PG_INT64_MAX || r->bytes > PG_INT64_MAX)
		return "It sent a greeting with numbers that cannot be.";
	return NULL;
}

const char *
m1pg_judge_cache(const m1w_cache *cache)
{
	if (cache->snapshots > PG_INT32_MAX || cache->bytes > PG_INT64_MAX)
		return "It sent numbers of snapshots that cannot be.";
	return NULL;
}
