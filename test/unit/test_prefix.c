/*
 * test_prefix.c - requests that share the beginnings of their prompts: what is common is prefilled once, to the last bit
 * as if it were not; owners share nothing; no failure of one holds up others; memory is waited for in order.
 */
#include "engine_testing.h"

#include <stdio.h>

#define MB ((size_t) 1 << 20)
#define PAGE_TOKENS 64
#define PAGE_BYTES ((size_t) 32768) /* of m1-nano */

/* ---- a look into the backend ---- */

static m1b_ops hooked;
static const m1b_ops *real;
static long fed_tokens;
static uint64_t logits_sum;
static int own_taken;

static bool
count_tokens(m1b_backend *b, const m1b_batch *batch)
{
	fed_tokens += batch->n_tokens;
	return real->begin(b, batch);
}

static m1_status
sum_logits(m1b_backend *b, const float *device, size_t n, float *host, m1_error *err)
{
	m1_status status = real->read(b, device, n, host, err);

	for (size_t i = 0; i < n; i++)
	{
		uint32_t bits;

		memcpy(&bits, &host[i], sizeof bits);
		logits_sum = (logits_sum ^ bits) * 0x100000001b3u;
	}
	return status;
}

static m1b_memory
memory_of(const m1_engine *e)
{
	m1b_backend *b = m1_engine_model(e)->backend;

	return b->ops->memory(b);
}

/* From now on, tokens that go through the model are counted, and the bits of all logits summed up. */
static m1_engine *
open_hooked(m1_engine_options options)
{
	m1_engine *e = open_engine(options);
	m1b_backend *b = m1_engine_model(e)->backend;

	real = b->ops;
	hooked = *real;
	hooked.begin = count_tokens;
	hooked.read = sum_logits;
	b->ops = &hooked;
	fed_tokens = 0;
	return e;
}

/* Nothing but snapshots holds memory any more. */
static void
assert_all_returned(const m1_engine *e, m1b_memory at_first)
{
	const m1b_memory now = memory_of(e);

	assert_int_equal(now.free_pages + now.snapshot_pages, at_first.free_pages);
	assert_int_equal(now.snapshots, cache_now.snapshots);
	assert_true(cache_now.bytes >= now.snapshot_bytes);
}

/* ---- rows of a template ---- */

#define TEMPLATE                                                                                                     \
	"Classify the following text as one of: hardware, account, billing, delivery, praise, other. Think of what the " \
	"customer wants, not of what he says. A text about a parcel is delivery, one about money is billing, and one "   \
	"about a login is account. Write one word.\n\n"

static char row_text[1024];

/* Row i: the template, and a few words of its own. */
static m1w_generate
row(int i)
{
	m1w_generate g = prompt("x");

	snprintf(row_text, sizeof row_text, TEMPLATE "My parcel number %d never arrived.", i);
	g.prompt = m1_slice_of(row_text);
	g.template_len = strlen(TEMPLATE);
	g.max_tokens = 1;
	g.thinking_budget = 0;
	g.cache_owner = 1;
	return g;
}

static void
submit_rows(m1_engine *e, int first, int last)
{
	for (int i = first; i <= last; i++)
	{
		m1w_generate g = row(i);

		submit(e, (uint64_t) i, &g);
	}
}

/* The tokens that rows have in common, and the sum of what they do not. */
static int
sum_rows(int first, int last, long *rest)
{
	int common = 0;

	*rest = 0;
	for (int i = first; i <= last; i++)
		if (outcomes[i].facts.cached_tokens > common)
			common = outcomes[i].facts.cached_tokens;
	for (int i = first; i <= last; i++)
		*rest += outcomes[i].facts.prompt_tokens - common;
	return common;
}

static void
test_thousand_rows_prefill_the_template_once(void **state)
{
	enum
	{
		N = REPEATED(1000)
	};
	m1_engine *e = open_hooked((m1_engine_options){.max_requests = 64, .prefix_cache_bytes = 4 * MB});
	const m1b_memory at_first = memory_of(e);
	long rest;
	int common;

	(void) state;
	submit_rows(e, 1, N);
	run_all(e);
	common = sum_rows(1, N, &rest);
	assert_true(common > 80);
	for (int i = 1; i <= N; i++)
	{
		assert_true(outcomes[i].done);
		assert_int_equal(outcomes[i].facts.cached_tokens, i == 1 ? 0 : common);
		assert_int_equal(outcomes[i].prefilled, outcomes[i].facts.cached_tokens);
	}
	assert_int_equal(fed_tokens, common + rest);
	assert_all_returned(e, at_first);
	m1_engine_close(e);
}

static void
test_no_budget_no_snapshots(void **state)
{
	m1_engine *e = open_hooked((m1_engine_options){0});
	long rest;

	(void) state;
	submit_rows(e, 1, 20);
	run_all(e);
	assert_int_equal(sum_rows(1, 20, &rest), 0);
	assert_int_equal(fed_tokens, rest);
	assert_int_equal(memory_of(e).snapshots, 0);
	m1_engine_close(e);
}

/* A budget below one snapshot: nobody waits for what will not come. */
static void
test_too_small_a_budget(void **state)
{
	m1_engine *e = open_hooked((m1_engine_options){.prefix_cache_bytes = 100 << 10});
	m1w_generate g;

	(void) state;
	submit_rows(e, 1, 8);
	run_steps(e, 1);
	for (int i = 1; i <= 8; i++)
		assert_int_equal(outcomes[i].progress_events > 0, 1);
	run_all(e);
	g = row(9);
	submit(e, 9, &g);
	run_all(e);
	assert_int_equal(outcomes[9].facts.cached_tokens, 0);
	assert_int_equal(cache_now.snapshots, 0);
	m1_engine_close(e);
}

static m1b_snapshot *
count_own(m1b_backend *b, const m1b_state *state, int n_tokens, m1b_account account)
{
	own_taken += account == M1B_OWN;
	return real->snapshot_take(b, state, n_tokens, account);
}

static m1w_generate
row_of(int i, uint64_t owner)
{
	m1w_generate g = row(i);

	g.cache_owner = owner;
	return g;
}

/*
 * A request that scores its choices goes back to a snapshot of its own, which is not on the cache's account: with room
 * for what two owners leave and not a byte more, both still find it, though one comes while choices are being scored.
 */
static void
test_scoring_takes_nothing_from_the_cache(void **state)
{
	m1_engine *e = open_hooked((m1_engine_options){.prefix_cache_bytes = 8 * MB});
	m1w_generate g = row_of(1, 1);
	size_t budget;
	int common;

	(void) state;
	submit(e, 1, &g);
	run_all(e);
	budget = 2 * (size_t) cache_now.bytes;
	m1_engine_close(e);

	e = open_hooked((m1_engine_options){.prefix_cache_bytes = budget});
	hooked.snapshot_take = count_own;
	own_taken = 0;
	submit(e, 1, &g);
	run_all(e);
	g = row_of(2, 1);
	g.max_tokens = 40;
	g.constraint = M1W_CONSTRAINT_CHOICES;
	g.constraint_text = m1_slice_of("[\"hardware failure\", \"delivery of a parcel\", \"billing of something\"]");
	g.score_choices = 1;
	submit(e, 2, &g);
	for (int steps = 0; own_taken == 0; steps++)
	{
		assert_true(steps < 10);
		run_steps(e, 1);
	}
	g = row_of(3, 2);
	submit(e, 3, &g);
	run_steps(e, 3);
	assert_true(outcomes[3].progress_events > 0 && !outcomes[2].done);
	run_all(e);
	assert_true(outcomes[2].done && outcomes[2].logprobs.len == 3 * sizeof(double));
	assert_int_equal(own_taken, 1);
	assert_int_equal(cache_now.bytes, budget);
	common = outcomes[2].facts.cached_tokens;
	assert_true(common > 80);
	for (int i = 4; i <= 5; i++)
	{
		g = row_of(i, (uint64_t) i - 3);
		submit(e, (uint64_t) i, &g);
		run_all(e);
		assert_int_equal(outcomes[i].facts.cached_tokens, common);
	}
	m1_engine_close(e);
}

static void
test_owners_never_share(void **state)
{
	m1_engine *e = open_hooked((m1_engine_options){.max_requests = 64, .prefix_cache_bytes = 8 * MB});
	long rest;
	int common;

	(void) state;
	for (int i = 1; i <= 30; i++)
	{
		m1w_generate g = row(i);

		g.cache_owner = (uint64_t) (i % 3);
		submit(e, (uint64_t) i, &g);
	}
	run_all(e);
	common = sum_rows(1, 30, &rest);
	for (int i = 1; i <= 30; i++)
		assert_int_equal(outcomes[i].facts.cached_tokens, i <= 3 ? 0 : common);
	assert_int_equal(fed_tokens, 3 * common + rest);
	/* the same prompt of an owner who was never there */
	{
		m1w_generate g = row(1);

		g.cache_owner = 3;
		submit(e, 31, &g);
		run_all(e);
		assert_int_equal(outcomes[31].facts.cached_tokens, 0);
	}
	m1_engine_close(e);
}

/* The one that prefills for all is cancelled midway, or stops because its client is slow: the next one takes over. */
static void
test_others_go_on_when_the_first_does_not(void **state)
{
	(void) state;
	for (int pause = 0; pause <= 1; pause++)
	{
		m1_engine *e =
			open_hooked((m1_engine_options){.max_requests = 16, .prefill_chunk = 32, .prefix_cache_bytes = 4 * MB});
		const m1b_memory at_first = memory_of(e);
		int common = 0;

		submit_rows(e, 1, 10);
		run_steps(e, 2);
		assert_true(outcomes[1].progress_events > 0);
		for (int i = 2; i <= 10; i++)
			assert_int_equal(outcomes[i].progress_events, 0);
		if (pause)
			m1_engine_pause(e, 1);
		else
			m1_engine_cancel(e, 1);
		run_all(e);
		assert_int_equal(outcomes[1].failed, !pause);
		for (int i = 2; i <= 10; i++)
		{
			assert_true(outcomes[i].done);
			if (i == 3)
				common = outcomes[i].facts.cached_tokens;
			/* the second starts where a snapshot of the first was, if any: its system prompt */
			assert_true(i == 2 ? outcomes[i].facts.cached_tokens < 40 : outcomes[i].facts.cached_tokens == common);
		}
		assert_true(common > 80);
		m1_engine_resume(e, 1);
		run_all(e);
		assert_true(outcomes[1].done || outcomes[1].failed);
		assert_all_returned(e, at_first);
		m1_engine_close(e);
	}
}

/* Nobody told of a template: what a prompt has in common with an earlier one is noticed, in whole chunks. */
static void
test_templates_are_noticed(void **state)
{
	m1_engine *e = open_hooked((m1_engine_options){.prefill_chunk = 32, .prefix_cache_bytes = 8 * MB});
	int known = 0;

	(void) state;
	for (int i = 1; i <= 6; i++)
	{
		m1w_generate g = row(i);

		g.template_len = 0;
		g.cache_owner = i == 6 ? 2 : 1;
		submit(e, (uint64_t) i, &g);
		run_all(e);
		if (i == 1 || i == 6)
			assert_int_equal(outcomes[i].facts.cached_tokens, 0);
		else if (i == 2)
			assert_true(outcomes[i].facts.cached_tokens < 40); /* the system prompt's */
		else if (i == 3)
		{
			known = outcomes[i].facts.cached_tokens;
			assert_true(known > 80 && known % 32 == 0);
		}
		else
			assert_int_equal(outcomes[i].facts.cached_tokens, known);
	}
	/* also where ids are given, and by those that come at the same time */
	{
		static int32_t ids[300];
		int32_t last = 7;

		for (int i = 0; i < 300; i++)
			ids[i] = 300 + i;
		fed_tokens = 0;
		for (int i = 11; i <= 18; i++)
		{
			m1w_generate g = {
				.ids = {ids, 300}, .max_tokens = 1, .top_p = 1.0f, .thinking_budget = -1, .cache_owner = 5};

			ids[299] = last++;
			submit(e, (uint64_t) i, &g);
		}
		run_all(e);
		assert_int_equal(outcomes[18].facts.cached_tokens, 288);
		assert_int_equal(fed_tokens, 300 + 7 * 12);
	}
	m1_engine_close(e);
}

/* ---- the same bits ---- */

enum
{
	VARIETY = 12
};

/* Request i of many kinds: templates, none, conversations, ids; at temperature 1. */
static m1w_generate
varied(int i)
{
	static char text[4096];
	static char messages[8192];
	static int32_t ids[300];
	m1w_generate g = row(i / 4);

	g.max_tokens = 6;
	g.thinking_budget = i % 3 == 0 ? 0 : -1;
	g.temperature = 1.0f;
	g.seed = (uint64_t) i;
	snprintf(text, sizeof text, "%s" TEMPLATE "Row %d.", i % 8 < 4 ? "" : TEMPLATE TEMPLATE, i);
	switch (i % 4)
	{
		case 0:
			/* the ids of case 1 of the next i, cut in other places */
			if (i % 8 >= 4)
				g.prompt = m1_slice_of(text);
			break;
		case 1:
			g.prompt = m1_slice_of(text);
			g.template_len = 0;
			break;
		case 2:
			snprintf(messages, sizeof messages,
					 "[{\"role\": \"user\", \"content\": \"What is %d + 1? Tell me all that you know of it.\"},"
					 " {\"role\": \"assistant\", \"content\": \"It is a number, and a large one.\"},"
					 " {\"role\": \"user\", \"content\": \"Row %d.\"}]",
					 i / 8, i);
			g.prompt = m1_slice_of("");
			g.template_len = 0;
			g.messages = m1_slice_of(messages);
			break;
		default:
			for (int j = 0; j < 300; j++)
				ids[j] = 256 + (j < 270 ? j : j * i % 300);
			g.prompt = m1_slice_of("");
			g.template_len = 0;
			g.ids = (m1w_id_slice){ids, 280 + (size_t) i};
			break;
	}
	return g;
}

/* Everything that came of a request. */
static void
append_reply(m1_buf *to, int i)
{
	assert_true(outcomes[i].done);
	m1_buf_append(to, outcomes[i].reasoning.data, outcomes[i].reasoning.len);
	m1_buf_append(to, outcomes[i].content.data, outcomes[i].content.len);
	m1_buf_append(to, outcomes[i].ids.data, outcomes[i].ids.len);
}

static void
test_no_bit_depends_on_the_cache(void **state)
{
	static const int chunks[] = {256, 32};

	(void) state;
	for (int c = 0; c < 2; c++)
	{
		m1_buf without[VARIETY] = {{0}};
		uint64_t sums[VARIETY];
		int from_cache = 0;
		m1_engine *e = open_hooked((m1_engine_options){.prefill_chunk = chunks[c], .threads = 2});

		for (int i = 0; i < VARIETY; i++)
		{
			m1w_generate g = varied(i);

			logits_sum = 1;
			submit(e, (uint64_t) i, &g);
			run_all(e);
			sums[i] = logits_sum;
			append_reply(&without[i], i);
			assert_int_equal(outcomes[i].facts.cached_tokens, 0);
		}
		m1_engine_close(e);

		/* one after the other: all logits, also while the cache is full and gives up most of what it has */
		for (int size = 0; size < 2; size++)
		{
			e = open_hooked(
				(m1_engine_options){.prefill_chunk = chunks[c], .prefix_cache_bytes = size == 0 ? 64 * MB : MB / 2});
			for (int round = 0; round < 2 - size; round++)
				for (int i = 0; i < VARIETY; i++)
				{
					m1w_generate g = varied(i);
					const int id = 100 + 100 * round + i;

					logits_sum = 1;
					submit(e, (uint64_t) id, &g);
					run_all(e);
					assert_true(outcomes[id].done);
					if (logits_sum != sums[i])
						fail_msg("chunk %d, size %d, round %d, request %d with %d cached tokens: other logits",
								 chunks[c], size, round, i, outcomes[id].facts.cached_tokens);
					if (size == 0 && round == 1 && outcomes[id].facts.cached_tokens < 16)
						fail_msg("request %d of %d tokens, %d cached", i, outcomes[id].facts.prompt_tokens,
								 outcomes[id].facts.cached_tokens);
					from_cache += outcomes[id].facts.cached_tokens > 0;
				}
			m1_engine_close(e);
		}
		assert_true(from_cache > VARIETY);

		/* all at once, twice: all replies */
		e = open_engine((m1_engine_options){.prefill_chunk = chunks[c], .prefix_cache_bytes = 2 * MB, .threads = 2});
		for (int round = 0; round < 2; round++)
		{
			for (int i = 0; i < VARIETY; i++)
			{
				m1w_generate g = varied(i);

				submit(e, (uint64_t) (100 * round + i), &g);
			}
			run_all(e);
			for (int i = 0; i < VARIETY; i++)
			{
				m1_buf with = {0};

				append_reply(&with, 100 * round + i);
				assert_true(same_text(&with, &without[i]));
				m1_buf_free(&with);
			}
		}
		m1_engine_close(e);
		for (int i = 0; i < VARIETY; i++)
			m1_buf_free(&without[i]);
	}
}

/* ---- memory ---- */

/* A request that needs so many KV pages, prompt and reply together. */
static m1w_generate
of_pages(int pages)
{
	m1w_generate g = prompt("Hello.");

	g.max_tokens = pages * PAGE_TOKENS - 40;
	return g;
}

static void
test_memory_is_waited_for_in_order(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.kv_bytes = 8 * PAGE_BYTES});
	const m1b_memory at_first = memory_of(e);
	m1w_generate g;
	m1_error err;

	(void) state;
	assert_int_equal(at_first.pages, 8);
	assert_int_equal(m1_engine_info(e).context, 8 * PAGE_TOKENS);
	g = of_pages(2);
	for (int i = 1; i <= 3; i++)
		submit(e, (uint64_t) i, &g);
	g = of_pages(8);
	submit(e, 4, &g); /* has to wait for all three */
	g = of_pages(1);
	for (int i = 5; i <= 7; i++)
		submit(e, (uint64_t) i, &g); /* would fit beside them */
	run_steps(e, 1);
	assert_true(outcomes[3].progress_events > 0);
	assert_true(outcomes[4].progress_events + outcomes[5].progress_events == 0);
	m1_engine_cancel(e, 6);
	run_all(e);
	for (int i = 1; i <= 7; i++)
		assert_true(i == 6 ? outcomes[i].failed : outcomes[i].done);
	for (int i = 5; i <= 7; i += 2)
		assert_true(outcomes[4].first_progress < outcomes[i].first_progress);
	assert_int_equal(memory_of(e).free_pages, 8);

	/* what could never be held is refused at once, and says why */
	{
		m1_buf text = {0};

		for (int i = 0; i < 600; i++)
			m1_buf_puts(&text, "a box ");
		g = prompt("x");
		g.prompt = (m1_slice){text.data, text.len};
		assert_int_equal(m1_engine_generate(e, 8, &g, NULL, &err), M1_E_CONTEXT_OVERFLOW);
		assert_non_null(strstr(err.detail, "the context holds 512"));
		assert_non_null(strstr(err.hint, "kv_cache_size"));
		m1_buf_free(&text);
	}
	m1_engine_close(e);
}

/* Snapshots go before a request waits; and not at all when their going would not help. */
static void
test_snapshots_make_room(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.kv_bytes = 8 * PAGE_BYTES, .prefix_cache_bytes = 40 * PAGE_BYTES});
	const m1b_memory at_first = memory_of(e);
	m1w_generate g;
	uint32_t kept;

	(void) state;
	assert_int_equal(at_first.free_pages, 48);
	for (int i = 1; i <= 6; i++)
	{
		g = row(1);
		g.cache_owner = (uint64_t) i;
		submit(e, (uint64_t) i, &g);
	}
	run_all(e);
	kept = cache_now.snapshots;
	assert_true(kept >= 6 && memory_of(e).snapshot_pages >= 6);
	for (int i = 11; i <= 16; i++)
	{
		g = of_pages(8);
		g.cache_owner = (uint64_t) i; /* else they would wait for the first one's snapshot */
		submit(e, (uint64_t) i, &g);
	}
	run_steps(e, 1);
	for (int i = 11; i <= 16; i++)
		assert_true(outcomes[i].progress_events > 0); /* 6 times 8 pages are all there are */
	assert_true(cache_now.snapshots < kept);
	run_all(e);

	/* one that has to wait in any case leaves them alone */
	for (int i = 21; i <= 25; i++)
	{
		g = row(1);
		g.cache_owner = (uint64_t) i;
		submit(e, (uint64_t) i, &g);
	}
	run_all(e);
	for (int i = 31; i <= 36; i++)
	{
		g = of_pages(7);
		g.cache_owner = (uint64_t) i;
		submit(e, (uint64_t) i, &g);
	}
	run_steps(e, 1);
	kept = cache_now.snapshots;
	g = of_pages(8);
	submit(e, 37, &g);
	run_steps(e, 3);
	assert_int_equal(outcomes[37].progress_events, 0);
	assert_int_equal(cache_now.snapshots, kept);
	run_all(e);
	assert_true(outcomes[37].done);
	assert_all_returned(e, at_first);
	m1_engine_close(e);
}

/* All memory is taken, and the first one's snapshot cannot be kept: the others do not wait for the next one's. */
static void
test_nobody_waits_in_vain(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){.kv_bytes = 8 * PAGE_BYTES, .prefix_cache_bytes = 5 * PAGE_BYTES});
	static const int32_t ids[] = {300, 301, 302};
	m1w_generate g = {.ids = {ids, 3}, .top_p = 1.0f, .thinking_budget = -1};

	(void) state;
	g.max_tokens = 8 * PAGE_TOKENS - 3;
	submit(e, 1, &g);
	g.max_tokens = PAGE_TOKENS - 3;
	submit(e, 2, &g);
	for (int i = 3; i <= 5; i++)
	{
		g = row(i);
		g.max_tokens = 4 * PAGE_TOKENS - 130;
		submit(e, (uint64_t) i, &g);
	}
	run_steps(e, 1);
	assert_int_equal(memory_of(e).free_pages, 0);
	assert_int_equal(memory_of(e).snapshots, 0);
	assert_true(outcomes[3].progress_events > 0 && outcomes[4].progress_events + outcomes[5].progress_events == 0);
	m1_engine_cancel(e, 1);
	run_steps(e, 1);
	assert_true(outcomes[4].progress_events > 0 && outcomes[5].progress_events > 0);
	run_all(e);
	for (int i = 2; i <= 5; i++)
		assert_true(outcomes[i].done);
	m1_engine_close(e);
}

/* A hit whose own snapshot is in the way of the memory for the rest: it starts anew rather than never. */
static void
test_a_hit_in_its_own_way(void **state)
{
	m1_engine *e = open_engine(
		(m1_engine_options){.kv_bytes = 8 * PAGE_BYTES, .prefix_cache_bytes = 8 * PAGE_BYTES, .max_requests = 2});
	m1w_generate g = row(1);

	(void) state;
	submit(e, 1, &g);
	run_all(e);
	assert_true(memory_of(e).snapshot_pages > 0);
	g.max_tokens = 8 * PAGE_TOKENS;
	for (uint64_t i = 2; i <= 3; i++) /* both take all they can: 16 pages */
		submit(e, i, &g);
	run_steps(e, 1);
	assert_true(outcomes[2].progress_events > 0 && outcomes[3].progress_events > 0);
	run_all(e);
	assert_true(outcomes[2].done && outcomes[3].done);
	assert_true(same_text(&outcomes[2].content, &outcomes[3].content));
	m1_engine_close(e);
}

static void
test_bad_templates(void **state)
{
	m1_engine *e = open_engine((m1_engine_options){0});
	m1w_generate g = prompt("caf\xc3\xa9");
	m1_error err;

	(void) state;
	g.template_len = 6;
	assert_int_equal(m1_engine_generate(e, 1, &g, NULL, &err), M1_E_INVALID_ARGUMENT);
	g.template_len = 4; /* inside the character */
	assert_int_equal(m1_engine_generate(e, 1, &g, NULL, &err), M1_E_INVALID_ARGUMENT);
	g.template_len = 5;
	submit(e, 1, &g);
	g.prompt = m1_slice_of("");
	g.messages = m1_slice_of("[{\"role\": \"user\", \"content\": \"Hello.\"}]");
	assert_int_equal(m1_engine_generate(e, 2, &g, NULL, &err), M1_E_INVALID_ARGUMENT);
	run_all(e);
	assert_true(outcomes[1].done);
	m1_engine_close(e);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_thousand_rows_prefill_the_template_once),
		cmocka_unit_test(test_no_budget_no_snapshots),
		cmocka_unit_test(test_too_small_a_budget),
		cmocka_unit_test(test_scoring_takes_nothing_from_the_cache),
		cmocka_unit_test(test_owners_never_share),
		cmocka_unit_test(test_others_go_on_when_the_first_does_not),
		cmocka_unit_test(test_templates_are_noticed),
		cmocka_unit_test(test_no_bit_depends_on_the_cache),
		cmocka_unit_test(test_memory_is_waited_for_in_order),
		cmocka_unit_test(test_snapshots_make_room),
		cmocka_unit_test(test_nobody_waits_in_vain),
		cmocka_unit_test(test_a_hit_in_its_own_way),
		cmocka_unit_test(test_bad_templates),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
