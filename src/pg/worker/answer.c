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
#include "pg/usage/quota.h"
#include "pg/usage/usage.h"

#include <math.h>

#include "mb/pg_wchar.h"

#define NOT_UTF8 "It sent text that is not UTF-8."
#define NO_SENSE "It sent a frame that makes no sense."

/* Milliseconds: a request's age is less than ten years. */
#define LONGEST_MS (10 * 365.0 * 86400 * 1000)
/* Losses, norms and logarithms are closer to 0, or the engine says that the model's numbers are not finite. */
#define MOST_MEASURED 1e30

void
m1pg_note_asked(M1Asked *asked, const M1Slot *slot)
{
	memset(asked, 0, sizeof *asked);
	asked->type = slot->type;
	asked->text_len = slot->text_len;
	asked->wanted = slot->wanted;
	asked->n_ids = slot->n_ids;
	asked->stream = slot->stream;
	asked->max_tokens = slot->max_tokens;
	asked->scored = slot->scored;
	asked->logprobs = slot->logprobs;
	asked->keep = slot->keep;
	asked->fetch_offset = slot->fetch_offset;
	asked->fetch_most = slot->fetch_most;
	asked->fetch_part = slot->fetch_part;
	asked->lesson_tokens = slot->lesson_tokens;
	asked->update = slot->update;
	asked->want_logprobs = slot->want_logprobs;
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
is_id(int32 id)
{
	return id >= 0 && id < model()->vocab;
}

static bool
are_ids(m1w_id_slice ids)
{
	for (size_t i = 0; i < ids.len; i++)
		if (!is_id(m1w_id_at(ids, i)))
			return false;
	return true;
}

/* A number of tokens of which `part` is a part. */
static bool
is_part(int64 part, int64 whole)
{
	return part >= 0 && part <= whole;
}

/* Of a prompt, which is never empty; of ids, it is these. */
static bool
is_prompt(const M1Asked *asked, int32 tokens)
{
	return tokens >= 1 && tokens <= model()->context && (asked->n_ids == 0 || (Size) tokens == asked->n_ids);
}

/* Of a reply: no more than were asked for, nor than the context leaves behind the prompt. */
static bool
is_reply(const M1Asked *asked, int32 prompt, int32 tokens)
{
	return tokens >= 0 && tokens <= (int64) asked->max_tokens + M1PG_MOST_CLOSING &&
		(int64) prompt + tokens <= (int64) model()->context + M1PG_MOST_CLOSING;
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
	if (!is_prompt(asked, p->prompt_tokens) || !is_part(p->prefilled, p->prompt_tokens) ||
		!is_reply(asked, p->prompt_tokens, p->generated))
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

static bool
are_token_logprobs(m1_slice values)
{
	for (Size i = 0; i < values.len / sizeof(float); i++)
	{
		float		value;

		memcpy(&value, values.data + i * sizeof value, sizeof value);
		if (!(value <= 1e-3f && value >= (float) -MOST_MEASURED))
			return false;
	}
	return true;
}

static bool
are_experts(m1_slice experts)
{
	for (Size i = 0; i < experts.len / sizeof(uint16); i++)
	{
		uint16		expert;

		memcpy(&expert, experts.data + i * sizeof expert, sizeof expert);
		if (expert >= model()->experts && expert != M1W_NO_EXPERT)
			return false;
	}
	return true;
}

/* The places in a reply that were sampled under a mask, ascending; what was chosen there is among what could be. */
static bool
are_masked(const m1w_done *done)
{
	const Size	bytes = ((Size) model()->vocab + 63) / 64 * sizeof(uint64);
	const Size	n = done->masks.len / bytes;
	int32		last = -1;
	int32		last_mask = -1;

	if (done->masks.len % bytes != 0 || n > done->masked.len || done->mask_of.len != done->masked.len)
		return false;
	for (Size i = 0; i < done->masked.len; i++)
	{
		int32		at = m1w_id_at(done->masked, i);
		int32		number = m1w_id_at(done->mask_of, i);
		uint64		word;
		int32		id;

		if (at <= last || (Size) at >= done->ids.len || number < 0 || (Size) number >= n)
			return false;
		id = m1w_id_at(done->ids, at);
		memcpy(&word, done->masks.data + number * bytes + id / 64 * sizeof word, sizeof word);
		if ((word >> id % 64 & 1) == 0)
			return false;
		last = at;
		last_mask = Max(last_mask, number);
	}
	return (Size) (last_mask + 1) == n;
}

/* What a lesson will be made of. */
static const char *
judge_kept(const m1w_done *done)
{
	const Size	n = done->prompt_ids.len + done->ids.len;
	const Size	of_layer = n * model()->layers * sizeof(uint16);

	if (!are_ids(done->prompt_ids) || done->prompt_ids.len != (Size) done->prompt_tokens)
		return "It kept token ids that the model does not have, or another number of them.";
	if (done->sampled_logprobs.len != done->ids.len * sizeof(float) || !are_token_logprobs(done->sampled_logprobs))
		return "It kept probabilities that cannot be.";
	if (done->experts.len % of_layer != 0 || done->experts.len / of_layer > (Size) model()->experts ||
		!are_experts(done->experts))
		return "It kept experts that the model does not have.";
	return are_masked(done) ? NULL : "It kept masks that cannot be.";
}

static const char *
judge_done(const M1Asked *asked, const m1w_done *done)
{
	if (!is_text(done->content) || !is_text(done->reasoning) || !is_text(done->tool_calls) || !is_text(done->logprobs))
		return NOT_UTF8;
	if (!is_prompt(asked, done->prompt_tokens) || !is_part(done->cached_tokens, done->prompt_tokens) ||
		!is_reply(asked, done->prompt_tokens, done->completion_tokens) ||
		!is_part(done->reasoning_tokens, done->completion_tokens))
		return "It sent a reply with counts of tokens that cannot be.";
	if (asked->has_progress && (done->prompt_tokens != asked->progress.prompt_tokens ||
								done->completion_tokens < asked->progress.generated))
		return "It sent a reply with other counts of tokens than its progress.";
	if (!is_time(done->queue_ms) || !is_time(done->prefill_ms) || !is_time(done->decode_ms))
		return "It sent a reply with times that cannot be.";
	if (!are_ids(done->ids))
		return "It sent token ids that the model does not have.";
	if (done->ids.len != (asked->n_ids > 0 || asked->keep ? (Size) done->completion_tokens : 0))
		return "It sent another number of token ids than of tokens.";
	if (!are_logprobs(done->choice_logprobs) || (done->choice_logprobs.len > 0 && !asked->scored) ||
		(done->logprobs.len > 0 && !asked->logprobs))
		return "It sent probabilities that cannot be.";
	if (asked->keep)
		return judge_kept(done);
	if (done->prompt_ids.len > 0 || done->sampled_logprobs.len > 0 || done->experts.len > 0 || done->masked.len > 0 ||
		done->masks.len > 0 || done->mask_of.len > 0)
		return "It sent what it was not asked to keep.";
	return NULL;
}

/* The engine gives adapters a sixteenth of the machine's memory; moments take twice as much more. */
static bool
may_be_fetched(uint64 bytes)
{
	return bytes <= model()->machine_bytes / 4;
}

/* Each piece is as long as was asked for, but for the last: so there is an end to them. */
static const char *
judge_bytes(const M1Asked *asked, const m1w_bytes *b)
{
	if (b->part != asked->fetch_part || b->offset != asked->fetch_offset)
		return "It sent another piece than was asked for.";
	if (!may_be_fetched(b->total) || b->offset > b->total ||
		b->bytes.len != Min(asked->fetch_most, b->total - b->offset))
		return "It sent a piece that does not fit into the whole.";
	return NULL;
}

/* NaN is not, either. A little below 0 is what rounding makes of it. */
static bool
is_measure(double x, double most)
{
	return x >= -1e-3 && x <= most;
}

/* Only what changes something can be dropped, and nobody reads the numbers of that. */
static bool
are_numbers(const M1Asked *asked, const m1w_learned *l)
{
	if (!is_time(l->seconds * 1000) || (l->dropped && !asked->update))
		return false;
	return l->dropped ||
		(fabs(l->loss) <= MOST_MEASURED && is_measure(l->balance, MOST_MEASURED) &&
		 is_measure(l->most_load, model()->experts + 1e-3) && is_measure(l->entropy, log(model()->vocab) + 1e-3) &&
		 is_measure(l->gradient_norm, MOST_MEASURED) && is_measure(l->old_difference, MOST_MEASURED) &&
		 is_measure(l->old_mean, MOST_MEASURED));
}

static bool
are_lesson_counts(const M1Asked *asked, const m1w_learned *l)
{
	return l->tokens == (int64) asked->lesson_tokens && is_part(l->rows, l->tokens) && is_part(l->learned, l->tokens) &&
		is_part(l->predicted, l->learned) && is_part(l->clipped, l->predicted) &&
		is_part(l->rerouted, l->rows * model()->layers) && l->updates >= 0 && may_be_fetched(l->bytes);
}

/* What has an adapter that may differ from all others is told by its digest. */
static bool
is_digest_of(m1w_type question, m1_slice digest)
{
	return question == M1W_TRAINING || question == M1W_SERVE ? m1w_is_digest(digest) : digest.len == 0;
}

static const char *
judge_learned(const M1Asked *asked, const m1w_learned *l)
{
	if (l->logprobs.len != (asked->want_logprobs ? asked->lesson_tokens * sizeof(float) : 0) ||
		!are_token_logprobs(l->logprobs))
		return "It answered with probabilities that cannot be, or that nobody wanted.";
	if (!are_numbers(asked, l) || !are_lesson_counts(asked, l) || !is_digest_of(asked->type, l->digest))
		return "It answered a lesson with numbers that cannot be.";
	return NULL;
}

static const char *
judge_counted(const M1Asked *asked, const m1w_counted *c)
{
	if (c->tokens < (asked->text_len > 0) || (uint64) c->tokens > asked->text_len)
		return "It sent a count of tokens that cannot be.";
	return NULL;
}

/* An engine whose model's numbers are not finite says so. */
static const char *
judge_vector(const m1w_vector *vector)
{
	const Size	n = vector->values.len / sizeof(float);

	if (n != (Size) model()->vocab)
		return "It sent logits that are not as many as the model has tokens.";
	for (Size i = 0; i < n; i++)
	{
		float		value;

		memcpy(&value, vector->values.data + i * sizeof value, sizeof value);
		if (!isfinite(value))
			return "It sent logits that are no numbers.";
	}
	return NULL;
}

static bool
answers(m1w_type type, const M1Asked *asked)
{
	const m1w_type question = asked->type;

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
			return question == M1W_TOKENIZE && asked->wanted != M1W_WANT_COUNT;
		case M1W_COUNTED:
			return question == M1W_TOKENIZE && asked->wanted == M1W_WANT_COUNT;
		case M1W_TEXT:
			return question == M1W_DETOKENIZE;
		case M1W_VECTOR:
			return question == M1W_LOGITS;
		case M1W_LEARNED:
			return question == M1W_PUT || question == M1W_SERVE || question == M1W_TRAINING ||
				question == M1W_LESSON || question == M1W_FORGET;
		case M1W_BYTES:
			return question == M1W_FETCH;
		default:
			return false;
	}
}

/* ---- long answers, part by part ---- */

bool
m1pg_answers_in_parts(m1w_type type)
{
	return type == M1W_TOKENS || type == M1W_TEXT;
}

/*
 * One number of an m1w_tokens, which has a count and so many ids, and a count
 * and so many ends; what is not wanted is not there. Each token ends where the
 * one before it does or later, and none behind the text. How long the answer is
 * has_length knows.
 */
static const char *
judge_number(M1Asked *asked, Size at, int32 number)
{
	const Size	n = asked->n_tokens;

	if (at == n + 1)
		return asked->wanted == M1W_WANT_ENDS || number == 0 ? NULL : NO_SENSE;
	if (at <= n)
		return is_id(number) ? NULL : "It sent token ids that the model does not have.";
	if (number < asked->last_end || (Size) number > asked->text_len)
		return "It sent tokens that end outside of their text.";
	asked->last_end = number;
	return NULL;
}

static const char *
judge_numbers(M1Asked *asked, const char *part, Size len)
{
	const char *wrong = NULL;

	/* a part has a whole number of them: all but the last are of a length that is one */
	for (Size i = 0; i < len / sizeof(int32) && wrong == NULL; i++)
	{
		Size		at = asked->judged / sizeof(int32) + i;
		int32		number;

		memcpy(&number, part + i * sizeof number, sizeof number);
		if (at == 0)
			asked->n_tokens = number;
		else
			wrong = judge_number(asked, at, number);
	}
	return wrong;
}

/* How many bytes at the end are the beginning of a character. */
static int
begun_character(const char *s, Size len)
{
	for (int n = 1; n <= 3 && (Size) n <= len; n++)
	{
		const unsigned char *lead = (const unsigned char *) s + len - n;

		if ((*lead & 0xC0) != 0x80)
			return pg_utf_mblen(lead) > n ? n : 0;
	}
	return 0;
}

/* Text of which all up to here was UTF-8, but for the tail. */
static const char *
judge_text(M1Asked *asked, m1_slice s, bool is_last)
{
	int			begun;

	while (asked->n_tail > 0 && s.len > 0 && asked->n_tail < pg_utf_mblen((unsigned char *) asked->tail))
	{
		asked->tail[asked->n_tail++] = *s.data++;
		s.len--;
	}
	if (asked->n_tail > 0 && !is_text((m1_slice){asked->tail, asked->n_tail}))
		return NOT_UTF8;
	begun = begun_character(s.data, s.len);
	asked->n_tail = begun;
	memcpy(asked->tail, s.data + s.len - begun, begun);
	return is_text((m1_slice){s.data, s.len - begun}) && !(is_last && begun > 0) ? NULL : NOT_UTF8;
}

/* Whether an answer of this length has as much in it as its first numbers say; no token is shorter than a byte. */
static bool
has_length(const M1Asked *asked, m1w_type type, const char *part, Size len, Size total)
{
	uint32		n[2];			/* of an m1w_tokens: ids; ends, if there are no ids */

	if (len < (type == M1W_TEXT ? sizeof n[0] : sizeof n))
		return false;
	memcpy(n, part, Min(len, sizeof n));
	if (type == M1W_TEXT)
		return total == sizeof n[0] + (Size) n[0];
	if (asked->wanted == M1W_WANT_IDS)
		return n[0] <= asked->text_len && total == sizeof n + n[0] * sizeof(int32);
	return n[0] == 0 && n[1] <= asked->text_len && total == sizeof n + n[1] * sizeof(int32);
}

const char *
m1pg_judge_part(M1Asked *asked, m1w_type type, const char *part, Size len, Size more)
{
	Size		skip = asked->judged == 0 ? sizeof(uint32) : 0;
	const char *wrong;

	if (!answers(type, asked))
		return "It sent an answer to another question.";
	if (asked->judged == 0 && !has_length(asked, type, part, len, len + more))
		return NO_SENSE;
	if (type == M1W_TEXT)
		wrong = judge_text(asked, (m1_slice){part + skip, len - skip}, more == 0);
	else
		wrong = judge_numbers(asked, part, len);
	asked->judged += len;
	return wrong;
}

/* ---- all others ---- */

const char *
m1pg_judge_answer(M1Asked *asked, m1w_type type, const char *payload, Size len)
{
	union
	{
		m1w_progress progress;
		m1w_delta	delta;
		m1w_done	done;
		m1w_vector	vector;
		m1w_learned learned;
		m1w_bytes	bytes;
		m1w_counted counted;
		m1w_failure failure;
	}			m;
	m1_error	error;

	if (!answers(type, asked))
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
		case M1W_VECTOR:
			if (m1w_decode_vector(payload, len, &m.vector, &error) == M1_OK)
				return judge_vector(&m.vector);
			break;
		case M1W_LEARNED:
			if (m1w_decode_learned(payload, len, &m.learned, &error) == M1_OK)
				return judge_learned(asked, &m.learned);
			break;
		case M1W_BYTES:
			if (m1w_decode_bytes(payload, len, &m.bytes, &error) == M1_OK)
				return judge_bytes(asked, &m.bytes);
			break;
		case M1W_COUNTED:
			if (m1w_decode_counted(payload, len, &m.counted, &error) == M1_OK)
				return judge_counted(asked, &m.counted);
			break;
		default:
			if (m1w_decode_failure(payload, len, &m.failure, &error) == M1_OK)
				return NULL;
			break;
	}
	return NO_SENSE;
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
m1pg_judge_news(const m1w_ready *r)
{
	const M1ModelInfo *info = model();

	if (r->context != info->context || r->vocab != info->vocab || r->layers != info->layers ||
		r->experts != info->experts || r->has_tokenizer != info->has_tokenizer)
		return "It sent a second greeting of another model.";
	return m1pg_judge_ready(r);
}

const char *
m1pg_judge_cache(const m1w_cache *cache)
{
	if (cache->snapshots > PG_INT32_MAX || cache->bytes > PG_INT64_MAX)
		return "It sent numbers of snapshots that cannot be.";
	return NULL;
}
