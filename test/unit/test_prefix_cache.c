/*
 * test_prefix_cache.c - cuts depend on the request alone; a snapshot is found by exactly its name, though all hashes
 * collide; least recently used ones go first, pinned ones stay; bytes are exact and all come back.
 */
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "engine/prefix_cache.h"

#define CHUNK 64
#define MAX_CONTEXT 512
#define PAGE_BYTES ((size_t) 64 * 2 * 8 * sizeof(float)) /* 64 tokens of K and V, one head of 8 */
#define STATE_BYTES ((size_t) 4096)						 /* 1 head of 8 x 8, rounded up to a page of the system */

static m1b_backend *
open_backend(int kv_pages, size_t snapshot_bytes)
{
	m1b_backend *b;
	m1_error err;
	m1b_geometry g = {.heads = 1,
					  .kv_heads = 1,
					  .head_dim = 8,
					  .rope_theta = 1e4f,
					  .lightning_layers = 1,
					  .softmax_layers = 1,
					  .max_context = MAX_CONTEXT,
					  .max_states = 4,
					  .max_tokens = MAX_CONTEXT,
					  .max_moe_pairs = 1,
					  .expert_width = 1,
					  .hidden = 1,
					  .experts = 1,
					  .kv_bytes = (size_t) kv_pages * PAGE_BYTES,
					  .snapshot_bytes = snapshot_bytes};

	assert_ok(m1b_cpu_open(1, NULL, &b, &err));
	assert_ok(b->ops->configure(b, &g, &err));
	assert_int_equal(b->ops->memory(b).page_bytes, PAGE_BYTES);
	return b;
}

/* A state of n tokens; what it holds does not matter here. */
static m1b_state *
fed_state(m1b_backend *b, int n)
{
	m1b_state *state = b->ops->state_acquire(b, n);
	m1b_segment segment = {.state = state, .n_tokens = n};
	m1b_batch batch = {.n_tokens = n, .segments = &segment, .n_segments = 1};

	assert_non_null(state);
	b->ops->begin(b, &batch);
	return state;
}

/* ---- cuts ---- */

static void
assert_cuts(int n_tokens, const int *bounds, const char *want)
{
	int32_t ids[MAX_CONTEXT] = {0};
	char got[256] = "";
	m1_cuts cuts;

	assert_true(m1_cuts_make(&cuts, (m1_cut_scope){1, 0}, ids, n_tokens, CHUNK, bounds, M1_MAX_BOUNDS));
	for (int at = 0; at < n_tokens;)
	{
		const m1_cut *cut;
		int next = m1_cuts_next(&cuts, at, n_tokens);
		char number[20];

		assert_true(next > at && next - at <= CHUNK);
		at = next;
		cut = m1_cuts_at(&cuts, at);
		assert_true((cut == NULL) == (at == n_tokens));
		snprintf(number, sizeof number, "%d%s ", at, cut != NULL && cut->bound ? "!" : "");
		strcat(got, number);
	}
	assert_string_equal(got, want);
	m1_cuts_free(&cuts);
}

static void
test_cuts(void **state)
{
	(void) state;
	assert_cuts(1, (int[]){0, 0, 0}, "1 ");
	assert_cuts(64, (int[]){0, 0, 0}, "64 ");
	assert_cuts(200, (int[]){0, 0, 0}, "64 128 192 200 ");
	assert_cuts(200, (int[]){20, 20, 70}, "20! 64 70! 128 192 200 ");
	assert_cuts(200, (int[]){64, 100, 100}, "64! 100! 128 192 200 ");
	/* too short to keep; at the prompt's end */
	assert_cuts(100, (int[]){15, 99, 100}, "64 99! 100 ");
	assert_cuts(10, (int[]){2, 2, 10}, "10 ");
}

/* ---- names ---- */

/* The name of the first n of some ids under the given bounds. */
static m1_prefix_name
make_name(m1_cuts *cuts, uint64_t owner, const int32_t *ids, int n, int bound)
{
	const int bounds[] = {bound, n, n};

	assert_true(m1_cuts_make(cuts, (m1_cut_scope){owner, 0}, ids, n + 1, CHUNK, bounds, M1_MAX_BOUNDS));
	return m1_cuts_name(cuts, m1_cuts_at(cuts, n), ids);
}

/* With one bit of hash, everything collides; nothing is mistaken for anything else. */
static void
test_collisions(void **test_state)
{
	enum
	{
		OWNERS = 2,
		BOUNDS = 2,
		TEXTS = 40,
		LENGTHS = 3,
		N = OWNERS * BOUNDS * TEXTS * LENGTHS
	};
	static const int lengths[LENGTHS] = {40, 64, 90};
	m1b_backend *b = open_backend(8, (size_t) 100 << 20);
	const m1_model model = {.backend = b};
	m1_prefix_cache *cache = m1_prefix_cache_create(&model, (size_t) 100 << 20, 1);
	static int32_t ids[TEXTS][MAX_CONTEXT];
	m1_prefix *found[N];
	uint64_t seed = 3;

	(void) test_state;
	for (int t = 0; t < TEXTS; t++)
		for (int i = 0; i < MAX_CONTEXT; i++)
			/* texts differ in one id only */
			ids[t][i] = i == 30 ? t : (int32_t) (test_random(&seed) % 2);
	for (int t = 1; t < TEXTS; t++)
		for (int i = 0; i < MAX_CONTEXT; i++)
			ids[t][i] = i == 30 ? t : ids[0][i];
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < N; i++)
		{
			const int n = lengths[i % LENGTHS];
			m1_cuts cuts;
			m1_prefix_name name =
				make_name(&cuts, (uint64_t) (i / LENGTHS % OWNERS), ids[i / (LENGTHS * OWNERS) % TEXTS], n,
						  20 + i / (LENGTHS * OWNERS * TEXTS));

			if (round == 0)
			{
				m1b_state *state = fed_state(b, n);

				assert_null(m1_prefix_cache_find(cache, &name));
				assert_true(m1_prefix_cache_add(cache, &name, state));
				found[i] = m1_prefix_cache_find(cache, &name);
				b->ops->state_release(b, state);
			}
			assert_non_null(found[i]);
			assert_ptr_equal(m1_prefix_cache_find(cache, &name), found[i]);
			assert_int_equal(m1_prefix_tokens(found[i]), n);
			m1_cuts_free(&cuts);
		}
	for (int i = 0; i < N; i++)
		for (int j = 0; j < i; j++)
			assert_ptr_not_equal(found[i], found[j]);
	assert_int_equal(m1_prefix_cache_contents(cache).snapshots, N);
	m1_prefix_cache_free(cache);
	assert_int_equal(b->ops->memory(b).snapshot_bytes, 0);
	b->ops->close(b);
}

/* ---- the budget ---- */

static size_t
own_bytes(m1_prefix_cache *cache, const m1b_backend *b)
{
	return (size_t) m1_prefix_cache_contents(cache).bytes - b->ops->memory(b).snapshot_bytes;
}

static void
test_least_recently_used_go_first(void **test_state)
{
	enum
	{
		N = 40 /* tokens of each prefix: one page */
	};
	const size_t each = STATE_BYTES + PAGE_BYTES;
	m1b_backend *b = open_backend(8, (size_t) 1 << 20);
	const m1_model model = {.backend = b};
	m1_prefix_cache *cache = m1_prefix_cache_create(&model, (size_t) 1 << 20, 64);
	m1b_state *state = fed_state(b, N);
	int32_t ids[6][MAX_CONTEXT] = {{0}};
	m1_cuts cuts[6];
	m1_prefix_name names[6];
	size_t own;
	uint64_t three;

	(void) test_state;
	for (int i = 0; i < 6; i++)
	{
		ids[i][0] = i;
		names[i] = make_name(&cuts[i], 1, ids[i], N, N);
	}
	assert_true(m1_prefix_cache_add(cache, &names[0], state));
	own = own_bytes(cache, b);
	assert_true(own >= N * sizeof(int32_t) && own < 1024);
	assert_int_equal(m1_prefix_cache_contents(cache).bytes, each + own);
	m1_prefix_cache_free(cache);

	/* room for three and a half */
	three = 3 * (each + own);
	cache = m1_prefix_cache_create(&model, three + each / 2, 64);
	for (int i = 0; i < 3; i++)
		assert_true(m1_prefix_cache_add(cache, &names[i], state));
	assert_int_equal(m1_prefix_cache_contents(cache).bytes, three);
	m1_prefix_cache_touch(cache, m1_prefix_cache_find(cache, &names[0]));
	m1_prefix_pin(m1_prefix_cache_find(cache, &names[1]));
	assert_true(m1_prefix_cache_add(cache, &names[3], state)); /* 1 is the oldest, but pinned: 2 goes */
	assert_int_equal(m1_prefix_cache_contents(cache).bytes, three);
	assert_non_null(m1_prefix_cache_find(cache, &names[0]));
	assert_non_null(m1_prefix_cache_find(cache, &names[1]));
	assert_null(m1_prefix_cache_find(cache, &names[2]));
	assert_true(m1_prefix_cache_add(cache, &names[4], state)); /* now 0 */
	assert_null(m1_prefix_cache_find(cache, &names[0]));
	m1_prefix_unpin(m1_prefix_cache_find(cache, &names[1]));
	assert_true(m1_prefix_cache_add(cache, &names[5], state)); /* and now 1 */
	assert_null(m1_prefix_cache_find(cache, &names[1]));
	for (int left = 3; left > 0; left--)
	{
		assert_int_equal(m1_prefix_cache_contents(cache).snapshots, left);
		assert_true(m1_prefix_cache_evict(cache));
	}
	assert_false(m1_prefix_cache_evict(cache));
	assert_int_equal(m1_prefix_cache_contents(cache).bytes, 0);
	m1_prefix_cache_free(cache);
	for (int i = 0; i < 6; i++)
		m1_cuts_free(&cuts[i]);
	b->ops->state_release(b, state);
	b->ops->close(b);
}

/* What is too large is not kept, and costs nobody else his place; where all are pinned, nothing new is kept. */
static void
test_what_does_not_fit(void **test_state)
{
	const size_t budget = 2 * (STATE_BYTES + PAGE_BYTES) + 2048;
	m1b_backend *b = open_backend(8, budget);
	const m1_model model = {.backend = b};
	m1_prefix_cache *cache = m1_prefix_cache_create(&model, budget, 64);
	m1_prefix_cache *off = m1_prefix_cache_create(&model, 0, 64);
	m1b_state *small = fed_state(b, 40);
	int32_t ids[MAX_CONTEXT] = {0};
	int32_t others[MAX_CONTEXT] = {1};
	m1_cuts cuts[3];
	m1_prefix_name name = make_name(&cuts[0], 1, ids, 40, 40);
	m1_prefix_name other = make_name(&cuts[1], 1, others, 40, 40);
	m1_prefix_name third = make_name(&cuts[2], 2, others, 40, 40);

	(void) test_state;
	assert_true(m1_prefix_cache_could_hold(cache, 40));
	assert_true(m1_prefix_cache_could_hold(cache, 64));
	assert_false(m1_prefix_cache_could_hold(cache, 300));
	assert_false(m1_prefix_cache_could_hold(off, 1));
	assert_false(m1_prefix_cache_add(off, &name, small));
	m1_prefix_cache_free(off);

	assert_true(m1_prefix_cache_add(cache, &name, small));
	assert_true(m1_prefix_cache_add(cache, &other, small));
	m1_prefix_pin(m1_prefix_cache_find(cache, &name));
	m1_prefix_pin(m1_prefix_cache_find(cache, &other));
	assert_false(m1_prefix_cache_add(cache, &third, small));
	assert_int_equal(m1_prefix_cache_contents(cache).snapshots, 2);
	m1_prefix_cache_free(cache);
	for (int i = 0; i < 3; i++)
		m1_cuts_free(&cuts[i]);
	b->ops->state_release(b, small);
	assert_int_equal(b->ops->memory(b).free_pages, b->ops->memory(b).pages + (int) (budget / PAGE_BYTES));
	b->ops->close(b);
}

/* A long prefix and a short one of it share pages: these count once, and stay while one of the two does. */
static void
test_shared_pages_count_once(void **test_state)
{
	m1b_backend *b = open_backend(8, (size_t) 1 << 20);
	const m1_model model = {.backend = b};
	m1_prefix_cache *cache = m1_prefix_cache_create(&model, (size_t) 1 << 20, 64);
	m1b_state *state = b->ops->state_acquire(b, 256);
	m1b_segment segments[] = {{.state = state, .n_tokens = 128}, {.state = state, .start = 128, .n_tokens = 64}};
	int32_t ids[MAX_CONTEXT] = {0};
	m1_cuts cuts[2];
	m1_prefix_name shorter = make_name(&cuts[0], 1, ids, 128, 128);
	m1_prefix_name longer = make_name(&cuts[1], 1, ids, 192, 192);

	(void) test_state;
	b->ops->begin(b, &(m1b_batch){.n_tokens = 128, .segments = &segments[0], .n_segments = 1});
	assert_true(m1_prefix_cache_add(cache, &shorter, state));
	b->ops->begin(b, &(m1b_batch){.n_tokens = 64, .segments = &segments[1], .n_segments = 1});
	assert_true(m1_prefix_cache_add(cache, &longer, state));
	b->ops->state_release(b, state);
	assert_int_equal(b->ops->memory(b).snapshot_bytes, 2 * STATE_BYTES + 3 * PAGE_BYTES);
	assert_true(m1_prefix_cache_evict(cache)); /* the shorter, whose pages the longer has, too */
	assert_int_equal(b->ops->memory(b).snapshot_bytes, STATE_BYTES + 3 * PAGE_BYTES);
	assert_int_equal(b->ops->memory(b).snapshot_pages, 3);
	m1_prefix_cache_free(cache);
	assert_int_equal(b->ops->memory(b).snapshot_pages, 0);
	m1_cuts_free(&cuts[0]);
	m1_cuts_free(&cuts[1]);
	b->ops->close(b);
}

static void
test_recent_prompts(void **state)
{
	m1b_backend *b = open_backend(8, 0);
	const m1_model model = {.backend = b};
	m1_prefix_cache *cache = m1_prefix_cache_create(&model, 0, 64);
	uint64_t seed = 1;

	(void) state;
	assert_false(m1_prefix_cache_seen(cache, 42));
	assert_true(m1_prefix_cache_seen(cache, 42));
	/* memory is bounded: after very many others, the first is forgotten */
	for (int i = 0; i < 1 << 20; i++)
		m1_prefix_cache_seen(cache, (uint64_t) test_random(&seed) << 32 | test_random(&seed));
	assert_false(m1_prefix_cache_seen(cache, 42));
	m1_prefix_cache_free(cache);
	b->ops->close(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cuts),
		cmocka_unit_test(test_collisions),
		cmocka_unit_test(test_least_recently_used_go_first),
		cmocka_unit_test(test_what_does_not_fit),
		cmocka_unit_test(test_shared_pages_count_once),
		cmocka_unit_test(test_recent_prompts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
