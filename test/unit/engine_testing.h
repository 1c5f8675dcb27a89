/*
 * engine_testing.h - what the tests of the engine share: an engine whose events are kept by request, and requests.
 */
#ifndef M1_TEST_ENGINE_TESTING_H
#define M1_TEST_ENGINE_TESTING_H

#include "testing.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "engine/engine.h"

#define MODEL "models/m1-nano"
#define MAX_REQUESTS 8
#define MAX_IDS 1100

/* What became of each request. */
typedef struct outcome
{
	bool done;
	bool failed;
	m1_error error;
	m1w_done facts;
	m1_buf content;
	m1_buf reasoning;
	m1_buf calls;
	m1_buf ids;
	m1_buf logprobs;
	m1_buf streamed[M1W_CHANNEL_COUNT];
	m1w_learned learned;
	m1_buf kept[6]; /* prompt_ids, sampled_logprobs, experts, masked, masks, mask_of */
	int progress_events;
	int first_progress; /* the number of that event among those of all requests; 0 = none yet */
	int prefilled;		/* as the first progress event tells it */
} outcome;

static outcome outcomes[MAX_IDS];
static int all_progress_events;
static m1w_cache cache_now;

static inline void
on_progress(void *context, uint64_t id, const m1w_progress *p)
{
	(void) context;
	assert_true(p->prefilled <= p->prompt_tokens);
	all_progress_events++;
	if (outcomes[id].progress_events++ == 0)
	{
		outcomes[id].first_progress = all_progress_events;
		outcomes[id].prefilled = p->prefilled;
	}
}

static inline void
on_delta(void *context, uint64_t id, const m1w_delta *d)
{
	(void) context;
	assert_true(d->text.len > 0);
	m1_buf_append(&outcomes[id].streamed[d->channel], d->text.data, d->text.len);
}

static inline void
on_done(void *context, uint64_t id, const m1w_done *d)
{
	outcome *o = &outcomes[id];

	(void) context;
	assert_false(o->done || o->failed);
	o->done = true;
	o->facts = *d;
	m1_buf_append(&o->content, d->content.data, d->content.len);
	m1_buf_append(&o->reasoning, d->reasoning.data, d->reasoning.len);
	m1_buf_append(&o->calls, d->tool_calls.data, d->tool_calls.len);
	m1_buf_append(&o->ids, d->ids.data, d->ids.len * sizeof(int32_t));
	m1_buf_append(&o->logprobs, d->choice_logprobs.data, d->choice_logprobs.len);
	m1_buf_append(&o->kept[0], d->prompt_ids.data, d->prompt_ids.len * sizeof(int32_t));
	m1_buf_append(&o->kept[1], d->sampled_logprobs.data, d->sampled_logprobs.len);
	m1_buf_append(&o->kept[2], d->experts.data, d->experts.len);
	m1_buf_append(&o->kept[3], d->masked.data, d->masked.len * sizeof(int32_t));
	m1_buf_append(&o->kept[4], d->masks.data, d->masks.len);
	m1_buf_append(&o->kept[5], d->mask_of.data, d->mask_of.len * sizeof(int32_t));
}

static inline void
on_vector(void *context, uint64_t id, const m1w_vector *v)
{
	(void) context;
	outcomes[id].done = true;
	m1_buf_append(&outcomes[id].content, v->values.data, v->values.len);
}

static inline void
on_failed(void *context, uint64_t id, const m1_error *e)
{
	(void) context;
	assert_false(outcomes[id].done || outcomes[id].failed);
	outcomes[id].failed = true;
	outcomes[id].error = *e;
}

static inline void
on_cache(void *context, const m1w_cache *cache)
{
	(void) context;
	cache_now = *cache;
}

/* content has its log-probabilities, and reasoning its digest. */
static inline void
on_learned(void *context, uint64_t id, const m1w_learned *l)
{
	(void) context;
	assert_false(outcomes[id].done || outcomes[id].failed);
	outcomes[id].done = true;
	outcomes[id].learned = *l;
	m1_buf_append(&outcomes[id].content, l->logprobs.data, l->logprobs.len);
	m1_buf_append(&outcomes[id].reasoning, l->digest.data, l->digest.len);
}

static inline void
on_bytes(void *context, uint64_t id, const m1w_bytes *b)
{
	(void) context;
	assert_false(outcomes[id].done || outcomes[id].failed);
	outcomes[id].done = true;
	outcomes[id].learned.bytes = b->total;
	m1_buf_append(&outcomes[id].content, b->bytes.data, b->bytes.len);
}

static inline void
forget_outcomes(void)
{
	for (int i = 0; i < MAX_IDS; i++)
	{
		for (int k = 0; k < 6; k++)
			m1_buf_free(&outcomes[i].kept[k]);
		m1_buf_free(&outcomes[i].content);
		m1_buf_free(&outcomes[i].reasoning);
		m1_buf_free(&outcomes[i].calls);
		m1_buf_free(&outcomes[i].ids);
		m1_buf_free(&outcomes[i].logprobs);
		for (int c = 0; c < M1W_CHANNEL_COUNT; c++)
			m1_buf_free(&outcomes[i].streamed[c]);
	}
	memset(outcomes, 0, sizeof outcomes);
	all_progress_events = 0;
	cache_now = (m1w_cache){0};
}

/* Of a whole program of tests. */
static inline int
teardown(void **state)
{
	(void) state;
	forget_outcomes();
	return 0;
}

static const m1_engine_events engine_events = {
	NULL, on_progress, on_delta, on_done, on_vector, on_failed, on_cache, on_learned, on_bytes, NULL,
};

static inline m1_engine *
open_engine(m1_engine_options options)
{
	m1_engine *e;
	m1_error err;

	options.device = options.device != NULL ? options.device : "cpu";
	/* a helper polls while it waits for the next loop: more of them only where threads are what is tested */
	options.threads = options.threads > 0 ? options.threads : 1;
	options.max_requests = options.max_requests > 0 ? options.max_requests : MAX_REQUESTS;
	if (options.model_path == NULL)
		options.model_path = MODEL;
	forget_outcomes();
	assert_ok(m1_engine_open(&options, &engine_events, &e, &err));
	return e;
}

static inline m1w_generate
prompt(const char *text)
{
	m1w_generate g = {.prompt = m1_slice_of(text),
					  .system = m1_slice_of("You are a helpful assistant."),
					  .max_tokens = 1000,
					  .thinking_budget = -1,
					  .top_p = 0.95f};

	return g;
}

static inline void
submit(m1_engine *e, uint64_t id, const m1w_generate *g)
{
	m1_error err;

	assert_ok(m1_engine_generate(e, id, g, NULL, &err));
}

static inline void
run_steps(m1_engine *e, int n)
{
	bool busy;
	m1_error err;

	for (int i = 0; i < n; i++)
		assert_ok(m1_engine_step(e, &busy, &err));
}

static inline void
run_all(m1_engine *e)
{
	bool busy = true;
	m1_error err;

	for (int step = 0; busy; step++)
	{
		assert_true(step < 100000);
		assert_ok(m1_engine_step(e, &busy, &err));
	}
}

static inline void
assert_text(const m1_buf *got, const char *want)
{
	if (got->len != strlen(want) || (got->len > 0 && memcmp(got->data, want, got->len) != 0))
		fail_msg("\"%.*s\" instead of \"%s\"", (int) got->len, got->data, want);
}

static inline bool
same_text(const m1_buf *a, const m1_buf *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

#endif
