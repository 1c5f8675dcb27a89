/*
 * message.c - one function per message walks its fields with a codec, which either appends to a buffer or reads from a
 * payload.
 */
#include "wire/message.h"

#include <string.h>

typedef struct codec
{
	m1_buf *out;	/* encoding when set */
	const char *in; /* decoding otherwise */
	size_t left;
	bool bad; /* ran out of payload, or a value out of range */
} codec;

static void
raw(codec *c, void *value, size_t size)
{
	if (c->out != NULL)
		m1_buf_append(c->out, value, size);
	else if (c->bad || c->left < size)
	{
		c->bad = true;
		memset(value, 0, size);
	}
	else
	{
		memcpy(value, c->in, size);
		c->in += size;
		c->left -= size;
	}
}

#define FIELD(c, field) raw(c, &(field), sizeof(field))

/* A one-byte enumeration with values 0 .. count - 1. */
static void
enumeration(codec *c, uint8_t *value, unsigned count)
{
	raw(c, value, 1);
	if (*value >= count)
		c->bad = true;
}

/* A run of `unit`-byte elements behind its count; decoded as a pointer into the payload. */
static void
run(codec *c, const void **data, size_t *len, size_t unit)
{
	uint32_t n = (uint32_t) *len;

	raw(c, &n, sizeof n);
	if (c->out != NULL)
	{
		m1_buf_append(c->out, *data, *len * unit);
		return;
	}
	*data = NULL;
	*len = 0;
	if (c->bad || n > c->left / unit)
	{
		c->bad = true;
		return;
	}
	*data = c->in;
	*len = n;
	c->in += (size_t) n * unit;
	c->left -= (size_t) n * unit;
}

static void
text(codec *c, m1_slice *s)
{
	const void *data = s->data;

	run(c, &data, &s->len, 1);
	s->data = data;
}

static void
ids(codec *c, m1w_id_slice *s)
{
	const void *data = s->data;

	run(c, &data, &s->len, sizeof(int32_t));
	s->data = data;
}

/* Numbers of so many bytes each, as a slice of bytes. */
static void
array(codec *c, m1_slice *s, size_t unit)
{
	text(c, s);
	if (s->len % unit != 0)
		c->bad = true;
}

/* A name that is kept; optional ones may be empty. */
static void
name(codec *c, m1_slice *s, bool optional)
{
	text(c, s);
	if (s->len > M1W_MAX_NAME || (s->len == 0 && !optional))
		c->bad = true;
}

static void
fields_generate(codec *c, m1w_generate *m)
{
	text(c, &m->prompt);
	FIELD(c, m->template_len);
	FIELD(c, m->cache_owner);
	text(c, &m->system);
	text(c, &m->messages);
	text(c, &m->tools);
	text(c, &m->tool_choice);
	ids(c, &m->ids);
	FIELD(c, m->max_tokens);
	FIELD(c, m->thinking_budget);
	FIELD(c, m->temperature);
	FIELD(c, m->top_p);
	FIELD(c, m->top_k);
	FIELD(c, m->seed);
	enumeration(c, &m->stream, 2);
	FIELD(c, m->n_stops);
	if (m->n_stops > M1W_MAX_STOPS)
	{
		c->bad = true;
		m->n_stops = 0;
	}
	for (uint32_t i = 0; i < m->n_stops; i++)
		text(c, &m->stops[i]);
	enumeration(c, &m->constraint, M1W_CONSTRAINT_COUNT);
	text(c, &m->constraint_text);
	enumeration(c, &m->logprobs, 2);
	enumeration(c, &m->top_logprobs, M1W_MAX_TOP_LOGPROBS + 1);
	enumeration(c, &m->score_choices, 2);
	text(c, &m->adapter);
	enumeration(c, &m->keep, 2);
	enumeration(c, &m->background, 2);
}

static void
fields_words(codec *c, m1w_words *m)
{
	text(c, &m->text);
	enumeration(c, &m->tags, 2);
	enumeration(c, &m->wanted, M1W_WANTED_COUNT);
}

static void
fields_counted(codec *c, m1w_counted *m)
{
	FIELD(c, m->tokens);
}

static void
fields_text(codec *c, m1w_text *m)
{
	text(c, &m->text);
}

static void
fields_tokens(codec *c, m1w_tokens *m)
{
	ids(c, &m->ids);
	ids(c, &m->ends);
}

static void
fields_vector(codec *c, m1w_vector *m)
{
	array(c, &m->values, sizeof(float));
}

static void
fields_ready(codec *c, m1w_ready *m)
{
	text(c, &m->name);
	text(c, &m->architecture);
	text(c, &m->device);
	FIELD(c, m->parameters);
	FIELD(c, m->bytes);
	FIELD(c, m->layers);
	FIELD(c, m->experts);
	FIELD(c, m->context);
	FIELD(c, m->vocab);
	enumeration(c, &m->has_tokenizer, 2);
}

static void
fields_cache(codec *c, m1w_cache *m)
{
	FIELD(c, m->snapshots);
	FIELD(c, m->bytes);
}

static void
fields_progress(codec *c, m1w_progress *m)
{
	enumeration(c, &m->phase, M1W_PHASE_COUNT);
	FIELD(c, m->prompt_tokens);
	FIELD(c, m->prefilled);
	FIELD(c, m->generated);
}

static void
fields_delta(codec *c, m1w_delta *m)
{
	enumeration(c, &m->channel, M1W_CHANNEL_COUNT);
	text(c, &m->text);
}

static void
fields_done(codec *c, m1w_done *m)
{
	text(c, &m->content);
	text(c, &m->reasoning);
	text(c, &m->tool_calls);
	ids(c, &m->ids);
	enumeration(c, &m->finish, M1W_FINISH_COUNT);
	FIELD(c, m->prompt_tokens);
	FIELD(c, m->cached_tokens);
	FIELD(c, m->reasoning_tokens);
	FIELD(c, m->completion_tokens);
	FIELD(c, m->seed);
	FIELD(c, m->queue_ms);
	FIELD(c, m->prefill_ms);
	FIELD(c, m->decode_ms);
	array(c, &m->choice_logprobs, sizeof(double));
	text(c, &m->logprobs);
	ids(c, &m->prompt_ids);
	array(c, &m->sampled_logprobs, sizeof(float));
	array(c, &m->experts, sizeof(uint16_t));
	ids(c, &m->masked);
	array(c, &m->masks, sizeof(uint64_t));
	ids(c, &m->mask_of);
}

static void
fields_failure(codec *c, m1w_failure *m)
{
	FIELD(c, m->code);
	if (m->code == M1_OK || m->code >= M1_STATUS_COUNT)
		c->bad = true;
	text(c, &m->message);
	text(c, &m->detail);
	text(c, &m->hint);
}

static void
fields_bytes(codec *c, m1w_bytes *m)
{
	name(c, &m->name, false);
	enumeration(c, &m->part, M1W_PART_COUNT);
	FIELD(c, m->total);
	FIELD(c, m->offset);
	FIELD(c, m->most);
	text(c, &m->bytes);
}

static void
fields_training(codec *c, m1w_training *m)
{
	name(c, &m->name, false);
	name(c, &m->from, true);
	FIELD(c, m->rank);
	FIELD(c, m->expert_rank);
	text(c, &m->targets);
	FIELD(c, m->alpha);
	FIELD(c, m->seed);
}

static void
fields_lesson(codec *c, m1w_lesson *m)
{
	name(c, &m->training, false);
	enumeration(c, &m->loss, M1W_LOSS_COUNT);
	enumeration(c, &m->update, 2);
	enumeration(c, &m->want_logprobs, 2);
	FIELD(c, m->cap);
	FIELD(c, m->low);
	FIELD(c, m->high);
	FIELD(c, m->kl);
	FIELD(c, m->balance);
	FIELD(c, m->temperature);
	FIELD(c, m->tokens);
	FIELD(c, m->rate);
	FIELD(c, m->beta1);
	FIELD(c, m->beta2);
	FIELD(c, m->eps);
	FIELD(c, m->weight_decay);
	FIELD(c, m->clip);
	ids(c, &m->lengths);
	ids(c, &m->prompts);
	ids(c, &m->shares);
	array(c, &m->advantages, sizeof(float));
	ids(c, &m->ids);
	array(c, &m->weights, sizeof(float));
	array(c, &m->old_logprobs, sizeof(float));
	array(c, &m->ref_logprobs, sizeof(float));
	array(c, &m->experts, sizeof(uint16_t));
	ids(c, &m->masked);
	array(c, &m->masks, sizeof(uint64_t));
	ids(c, &m->mask_of);
}

static void
fields_learned(codec *c, m1w_learned *m)
{
	FIELD(c, m->updates);
	enumeration(c, &m->dropped, 2);
	FIELD(c, m->loss);
	FIELD(c, m->balance);
	FIELD(c, m->most_load);
	FIELD(c, m->entropy);
	FIELD(c, m->gradient_norm);
	FIELD(c, m->old_difference);
	FIELD(c, m->old_mean);
	FIELD(c, m->tokens);
	FIELD(c, m->rows);
	FIELD(c, m->learned);
	FIELD(c, m->predicted);
	FIELD(c, m->clipped);
	FIELD(c, m->rerouted);
	FIELD(c, m->seconds);
	FIELD(c, m->bytes);
	text(c, &m->digest);
	array(c, &m->logprobs, sizeof(float));
}

static void
fields_serve(codec *c, m1w_serve *m)
{
	name(c, &m->name, false);
	name(c, &m->from, false);
}

static void
fields_forget(codec *c, m1w_forget *m)
{
	enumeration(c, &m->kind, M1W_KEPT_COUNT);
	name(c, &m->name, false);
}

/* The encoder and the decoder of one message, both over its fields function. */
#define MESSAGE(name)                                                                           \
	bool m1w_encode_##name(m1_buf *out, const m1w_##name *m)                                    \
	{                                                                                           \
		codec c = {.out = out};                                                                 \
		m1w_##name copy = *m;                                                                   \
                                                                                                \
		fields_##name(&c, &copy);                                                               \
		return !out->failed && !c.bad;                                                          \
	}                                                                                           \
	m1_status m1w_decode_##name(const void *payload, size_t len, m1w_##name *m, m1_error *err)  \
	{                                                                                           \
		codec c = {.in = payload, .left = len};                                                 \
                                                                                                \
		memset(m, 0, sizeof *m);                                                                \
		fields_##name(&c, m);                                                                   \
		if (c.bad || c.left != 0)                                                               \
			return m1_fail(err, M1_E_CORRUPT, "malformed " #name " message of %zu bytes", len); \
		return M1_OK;                                                                           \
	}

MESSAGE(generate)
MESSAGE(words)
MESSAGE(counted)
MESSAGE(text)
MESSAGE(tokens)
MESSAGE(vector)
MESSAGE(ready)
MESSAGE(cache)
MESSAGE(progress)
MESSAGE(delta)
MESSAGE(done)
MESSAGE(failure)
MESSAGE(bytes)
MESSAGE(training)
MESSAGE(lesson)
MESSAGE(learned)
MESSAGE(serve)
MESSAGE(forget)

const char *
m1w_finish_name(m1w_finish reason)
{
	static const char *const names[M1W_FINISH_COUNT] = {"stop", "length", "thinking_budget", "loop"};

	return (unsigned) reason < M1W_FINISH_COUNT ? names[reason] : "unknown";
}

const char *
m1w_channel_name(m1w_channel channel)
{
	static const char *const names[M1W_CHANNEL_COUNT] = {"content", "reasoning", "tool_calls"};

	return names[channel];
}

int32_t
m1w_id_at(m1w_id_slice ids, size_t i)
{
	int32_t id;

	memcpy(&id, (const char *) ids.data + i * sizeof id, sizeof id);
	return id;
}

double
m1w_double_at(m1_slice values, size_t i)
{
	double x;

	memcpy(&x, values.data + i * sizeof x, sizeof x);
	return x;
}

m1w_failure
m1w_failure_of(const m1_error *err)
{
	m1w_failure m = {
		.code = (uint32_t) err->code,
		.message = m1_slice_of(err->message),
		.detail = m1_slice_of(err->detail),
		.hint = m1_slice_of(err->hint),
	};

	return m;
}

static void
copy_text(char *to, size_t size, m1_slice from)
{
	size_t n = from.len < size - 1 ? from.len : size - 1;

	if (n > 0)
		memcpy(to, from.data, n);
	to[n] = '\0';
}

void
m1w_failure_to_error(const m1w_failure *m, m1_error *err)
{
	err->code = (m1_status) m->code;
	copy_text(err->message, sizeof err->message, m->message);
	copy_text(err->detail, sizeof err->detail, m->detail);
	copy_text(err->hint, sizeof err->hint, m->hint);
}

bool
m1w_is_digest(m1_slice digest)
{
	if (digest.len != 16)
		return false;
	for (size_t i = 0; i < digest.len; i++)
		if (!((digest.data[i] >= '0' && digest.data[i] <= '9') || (digest.data[i] >= 'a' && digest.data[i] <= 'f')))
			return false;
	return true;
}
