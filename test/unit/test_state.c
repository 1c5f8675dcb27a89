/*
 * test_state.c - the memory of sequences: snapshots share full pages and never see them change, a sequence that goes on
 * from a snapshot is the one that was never cut, every page is accounted for at every moment, and all of it comes back.
 */
#include "testing.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu_internal.h"

#define HEADS 4
#define KV 2
#define D 16
#define LAYERS 2 /* of each kind */
#define PAGE M1B_PAGE_TOKENS
#define MAX_TOKENS (5 * PAGE)
#define MAX_STATES 6
#define MAX_SNAPSHOTS 8
#define POOL_PAGES 14 /* for sequences; not enough for all of them */
#define EXTRA_PAGES 4 /* for snapshots */

static size_t
page_bytes(bool f32)
{
	return (size_t) LAYERS * 2 * KV * PAGE * D * (f32 ? sizeof(float) : sizeof(uint16_t));
}

static m1b_cpu *
open_cpu(int pool_pages, int extra_pages, bool f32)
{
	m1b_backend *b;
	m1_error err;
	m1b_geometry g = {.heads = HEADS,
					  .kv_heads = KV,
					  .head_dim = D,
					  .rotary_dim = 8,
					  .rope_theta = 1e4f,
					  .lightning_layers = LAYERS,
					  .softmax_layers = LAYERS,
					  .max_context = MAX_TOKENS,
					  .max_states = MAX_STATES,
					  .max_tokens = MAX_TOKENS,
					  .max_moe_pairs = 1,
					  .expert_width = 1,
					  .hidden = 1,
					  .experts = 1,
					  .kv_bytes = (size_t) pool_pages * page_bytes(f32),
					  .snapshot_bytes = (size_t) extra_pages * page_bytes(f32),
					  .integer_experts = !f32};

	assert_ok(m1b_cpu_open(1, NULL, &b, &err));
	assert_ok(b->ops->configure(b, &g, &err));
	return m1b_cpu_of(b);
}

/* ---- sequences ---- */

/* What was fed to a sequence, and in which pieces. */
typedef struct history
{
	int32_t tokens[MAX_TOKENS];
	int cuts[MAX_TOKENS]; /* the end of each piece */
	int n_cuts;
	int n;
} history;

/* A number in [-1, 1) that depends on a token, where it is, and a place in its vector. */
static float
component(int32_t token, int position, int i)
{
	uint64_t x = ((uint64_t) (uint32_t) token << 32 | (uint32_t) position) * 0x9e3779b97f4a7c15u + (uint64_t) i;

	x |= 1;
	test_random(&x);
	test_random(&x);
	return test_random_float(&x);
}

/* Feeds tokens [from, to) in one piece through all layers; out, when wanted, is what comes of the last layers. */
static void
feed(m1b_cpu *c, m1b_state *state, const int32_t *tokens, int from, int to, float *out)
{
	static const float decay[HEADS] = {0.9f, 0.1f, 0.01f, 1e-5f};
	static float q[MAX_TOKENS * HEADS * D], k[MAX_TOKENS * KV * D], v[MAX_TOKENS * KV * D];
	static float qkv[MAX_TOKENS * HEADS * 3 * D], lightning[MAX_TOKENS * HEADS * D], softmax[MAX_TOKENS * HEADS * D];
	m1b_backend *b = &c->base;
	const int n = to - from;
	m1b_segment segment = {.state = state, .start = from, .n_tokens = n};
	m1b_batch batch = {.tokens = tokens + from, .n_tokens = n, .segments = &segment, .n_segments = 1};

	b->ops->begin(b, &batch);
	for (int layer = 0; layer < LAYERS; layer++)
	{
		m1b_attention attention = {.batch = &batch, .slot = layer, .q = q, .k = k, .v = v, .out = softmax};
		m1b_lightning light = {.batch = &batch, .slot = layer, .decay = decay, .qkv = qkv, .out = lightning};

		for (int t = 0; t < n; t++)
		{
			for (int i = 0; i < HEADS * D; i++)
				q[t * HEADS * D + i] = component(tokens[from + t], from + t, i);
			for (int i = 0; i < KV * D; i++)
			{
				k[t * KV * D + i] = component(tokens[from + t], from + t, 1000 + 100 * layer + i);
				v[t * KV * D + i] = component(tokens[from + t], from + t, 2000 + 100 * layer + i);
			}
			for (int i = 0; i < HEADS * 3 * D; i++)
				qkv[t * HEADS * 3 * D + i] = component(tokens[from + t], from + t, 3000 + 200 * layer + i);
		}
		b->ops->attention(b, &attention);
		b->ops->lightning(b, &light);
	}
	if (out != NULL)
	{
		memcpy(out, softmax + (n - 1) * HEADS * D, HEADS * D * sizeof *out);
		memcpy(out + HEADS * D, lightning + (n - 1) * HEADS * D, HEADS * D * sizeof *out);
	}
}

/* The same tokens in the same pieces in a state of their own, far from any snapshot, and then one token more. */
static void
replay(m1b_cpu *c, const history *h, float *out)
{
	m1b_state *state = c->base.ops->state_acquire(&c->base, MAX_TOKENS);
	int from = 0;

	assert_non_null(state);
	for (int i = 0; i < h->n_cuts; from = h->cuts[i++])
		feed(c, state, h->tokens, from, h->cuts[i], NULL);
	feed(c, state, h->tokens, h->n, h->n + 1, out);
	c->base.ops->state_release(&c->base, state);
}

/* ---- what must hold at any time ---- */

typedef struct sequence
{
	m1b_state *state; /* NULL: not there */
	int limit;		  /* tokens it was acquired for */
	history h;
} sequence;

typedef struct kept
{
	m1b_snapshot *snapshot; /* NULL: not there */
	uint64_t sum;			/* of all it holds */
	history h;
} kept;

static uint64_t
sum_bytes(uint64_t sum, const void *data, size_t n)
{
	const uint64_t *words = data;

	for (size_t i = 0; i < n / sizeof *words; i++)
		sum = (sum ^ words[i]) * 0x100000001b3u;
	return sum;
}

static uint64_t
sum_snapshot(const m1b_cpu *c, const m1b_snapshot *s)
{
	uint64_t sum = sum_bytes(1, s->lightning, c->pages.state_bytes);

	for (int i = 0; i < s->n_pages; i++)
		sum = sum_bytes(sum, c->page_memory + (size_t) s->pages[i] * c->pages.page_bytes, c->pages.page_bytes);
	return sum;
}

static void
check_accounts(m1b_cpu *c, const kept *snapshots)
{
	const m1b_memory m = c->base.ops->memory(&c->base);
	int holders[POOL_PAGES + EXTRA_PAGES] = {0};
	int of_snapshots[POOL_PAGES + EXTRA_PAGES] = {0};
	int reserved = 0;
	int in_use = 0;
	int only_snapshots = 0;
	int n = 0;
	size_t bytes = 0;

	for (int i = 0; i < MAX_STATES; i++)
	{
		reserved += c->states[i].list.reserved;
		for (int p = 0; p < c->states[i].list.n_pages; p++)
			holders[c->states[i].list.pages[p]]++;
	}
	for (int i = 0; i < MAX_SNAPSHOTS; i++)
		if (snapshots[i].snapshot != NULL)
		{
			/* a sequence's own counts like the sequence */
			const bool shared = snapshots[i].snapshot->account == M1B_SHARED;

			n += shared;
			bytes += shared ? c->pages.state_bytes : 0;
			for (int p = 0; p < snapshots[i].snapshot->n_pages; p++)
				(shared ? of_snapshots : holders)[snapshots[i].snapshot->pages[p]]++;
		}
	for (int p = 0; p < c->pages.n_pages; p++)
	{
		assert_int_equal(c->pages.use[p].snapshots, of_snapshots[p]);
		assert_int_equal(c->pages.use[p].holders, holders[p] + of_snapshots[p]);
		in_use += holders[p] + of_snapshots[p] > 0;
		only_snapshots += holders[p] == 0 && of_snapshots[p] > 0;
		bytes += of_snapshots[p] > 0 ? c->pages.page_bytes : 0;
	}
	assert_int_equal(c->pages.n_free, c->pages.n_pages - in_use);
	assert_int_equal(m.free_pages, c->pages.n_free - reserved);
	assert_true(m.free_pages >= 0);
	assert_int_equal(m.snapshot_pages, only_snapshots);
	assert_int_equal(m.snapshots, n);
	assert_int_equal(m.snapshot_bytes, bytes);
	for (int i = 0; i < MAX_SNAPSHOTS; i++)
		if (snapshots[i].snapshot != NULL)
			assert_true(sum_snapshot(c, snapshots[i].snapshot) == snapshots[i].sum);
}

/* ---- a long random life ---- */

typedef struct world
{
	m1b_cpu *c;
	m1b_cpu *far; /* for replays */
	sequence sequences[MAX_STATES];
	kept snapshots[MAX_SNAPSHOTS];
	uint64_t seed;
	int started, forked, refused, taken, not_taken;
} world;

static int
choose(world *w, int n)
{
	return (int) (test_random(&w->seed) % (uint32_t) n);
}

static void
start(world *w, sequence *s)
{
	const kept *from = &w->snapshots[choose(w, MAX_SNAPSHOTS)];
	const m1b_ops *ops = w->c->base.ops;
	const int free_before = ops->memory(&w->c->base).free_pages;
	int needed;

	s->limit = 1 + choose(w, MAX_TOKENS);
	if (from->snapshot != NULL && from->h.n < s->limit && choose(w, 4) > 0)
	{
		needed = (s->limit + PAGE - 1) / PAGE - from->h.n / PAGE;
		s->h = from->h;
		s->state = ops->state_acquire_from(&w->c->base, s->limit, from->snapshot);
		w->forked += s->state != NULL;
	}
	else
	{
		needed = (s->limit + PAGE - 1) / PAGE;
		memset(&s->h, 0, sizeof s->h);
		s->state = ops->state_acquire(&w->c->base, s->limit);
	}
	/* refused exactly when there is no room */
	assert_true((s->state != NULL) == (needed <= free_before));
	w->started += s->state != NULL;
	w->refused += s->state == NULL;
}

static void
go_on(world *w, sequence *s)
{
	int n = 1 + choose(w, choose(w, 3) == 0 ? 1 : 90);

	n = n < s->limit - s->h.n ? n : s->limit - s->h.n;
	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
		s->h.tokens[s->h.n + i] = choose(w, 3);
	feed(w->c, s->state, s->h.tokens, s->h.n, s->h.n + n, NULL);
	s->h.n += n;
	s->h.cuts[s->h.n_cuts++] = s->h.n;
}

static void
take(world *w, const sequence *s)
{
	kept *k = &w->snapshots[choose(w, MAX_SNAPSHOTS)];
	m1b_backend *b = &w->c->base;
	const m1b_memory before = b->ops->memory(b);
	const size_t cost = b->ops->snapshot_cost(b, s->state, s->h.n);
	const m1b_account account = choose(w, 4) == 0 ? M1B_OWN : M1B_SHARED;

	if (k->snapshot != NULL || s->h.n == 0)
		return;
	assert_true(cost <= b->ops->snapshot_cost(b, NULL, s->h.n));
	k->snapshot = b->ops->snapshot_take(b, s->state, s->h.n, account);
	assert_true((k->snapshot != NULL) == (s->h.n % PAGE == 0 || before.free_pages > 0));
	if (k->snapshot == NULL)
	{
		w->not_taken++;
		return;
	}
	assert_int_equal(b->ops->memory(b).snapshot_bytes, before.snapshot_bytes + (account == M1B_SHARED ? cost : 0));
	k->h = s->h;
	k->sum = sum_snapshot(w->c, k->snapshot);
	w->taken++;
}

/* The sequence's next token gives the same, bit for bit, as if it had never shared anything. */
static void
compare(world *w, sequence *s)
{
	float here[2 * HEADS * D];
	float there[2 * HEADS * D];

	if (s->h.n == s->limit)
		return;
	s->h.tokens[s->h.n] = 7;
	replay(w->far, &s->h, there);
	feed(w->c, s->state, s->h.tokens, s->h.n, s->h.n + 1, here);
	s->h.n++;
	s->h.cuts[s->h.n_cuts++] = s->h.n;
	assert_memory_equal(here, there, sizeof here);
}

static void
end(world *w, sequence *s)
{
	w->c->base.ops->state_release(&w->c->base, s->state);
	s->state = NULL;
}

static void
forget(world *w, kept *k)
{
	if (k->snapshot != NULL)
		w->c->base.ops->snapshot_release(&w->c->base, k->snapshot);
	k->snapshot = NULL;
}

static void
assert_all_wiped(const m1b_cpu *c)
{
	for (size_t i = 0; i < (size_t) c->pages.n_pages * c->pages.page_bytes; i++)
		assert_int_equal(c->page_memory[i], 0);
	for (size_t i = 0; i < MAX_STATES * c->pages.state_bytes; i++)
		assert_int_equal(c->state_memory[i], 0);
}

static void
random_life(bool f32)
{
	world *w = calloc(1, sizeof *w);
	const kept none[MAX_SNAPSHOTS] = {{0}};

	w->c = open_cpu(POOL_PAGES, EXTRA_PAGES, f32);
	w->far = open_cpu(5, 0, f32);
	w->seed = 2026;
	for (int step = 0; step < 8000; step++)
	{
		sequence *s = &w->sequences[choose(w, MAX_STATES)];
		const int what = choose(w, 10);

		if (s->state == NULL)
			start(w, s);
		else if (what < 4)
			go_on(w, s);
		else if (what < 6)
			take(w, s);
		else if (what < 7)
			compare(w, s);
		else if (what < 8)
			end(w, s);
		else
			forget(w, &w->snapshots[choose(w, MAX_SNAPSHOTS)]);
		check_accounts(w->c, w->snapshots);
	}
	/* all that can happen did, often */
	assert_true(w->forked > 100 && w->refused > 100 && w->taken > 100 && w->not_taken > 10);
	for (int i = 0; i < MAX_STATES; i++)
		if (w->sequences[i].state != NULL)
			end(w, &w->sequences[i]);
	for (int i = 0; i < MAX_SNAPSHOTS; i++)
		forget(w, &w->snapshots[i]);
	check_accounts(w->c, none);
	assert_int_equal(w->c->base.ops->memory(&w->c->base).free_pages, POOL_PAGES + EXTRA_PAGES);
	assert_all_wiped(w->c);
	w->c->base.ops->close(&w->c->base);
	w->far->base.ops->close(&w->far->base);
	free(w);
}

static void
test_random_life(void **state)
{
	(void) state;
	random_life(false);
}

static void
test_random_life_f32(void **state)
{
	(void) state;
	random_life(true);
}

/* What is reserved is there, whatever others take meanwhile. */
static void
test_reservations_hold(void **state)
{
	m1b_cpu *c = open_cpu(POOL_PAGES, 0, false);
	const m1b_ops *ops = c->base.ops;
	int32_t tokens[MAX_TOKENS] = {0};
	m1b_state *large = ops->state_acquire(&c->base, MAX_TOKENS);
	m1b_state *second = ops->state_acquire(&c->base, MAX_TOKENS);
	m1b_state *small;
	m1b_snapshot *snapshot;

	(void) state;
	assert_non_null(large);
	assert_non_null(second);
	assert_null(ops->state_acquire(&c->base, MAX_TOKENS)); /* 10 of 14 pages are reserved, none is touched */
	small = ops->state_acquire(&c->base, 4 * PAGE);
	assert_non_null(small);
	assert_null(ops->state_acquire(&c->base, 1));
	feed(c, large, tokens, 0, PAGE + 1, NULL);
	assert_null(ops->snapshot_take(&c->base, large, PAGE + 1, M1B_SHARED)); /* its last page would be one more */
	assert_int_equal(ops->memory(&c->base).snapshot_bytes, 0);
	feed(c, large, tokens, PAGE + 1, 2 * PAGE, NULL);
	snapshot = ops->snapshot_take(&c->base, large, 2 * PAGE, M1B_SHARED); /* full pages only: nothing more to take */
	assert_non_null(snapshot);
	ops->state_release(&c->base, small);
	feed(c, large, tokens, 2 * PAGE, MAX_TOKENS, NULL);
	feed(c, second, tokens, 0, MAX_TOKENS, NULL);
	ops->state_release(&c->base, large);
	ops->state_release(&c->base, second);
	assert_int_equal(ops->memory(&c->base).snapshot_pages, 2);
	assert_int_equal(ops->memory(&c->base).free_pages, POOL_PAGES - 2);
	ops->snapshot_release(&c->base, snapshot);
	assert_int_equal(ops->memory(&c->base).free_pages, POOL_PAGES);
	ops->close(&c->base);
}

/*
 * A budget smaller than one context bounds a sequence; none at all is an error; a huge one is cut to what can be used.
 */
static void
test_budgets(void **state)
{
	m1b_cpu *c = open_cpu(3, 2, false);
	m1b_backend *b = &c->base;
	m1b_geometry g = c->g;
	m1_error err;

	(void) state;
	assert_int_equal(b->ops->memory(b).pages, 3);
	assert_null(b->ops->state_acquire(b, 4 * PAGE)); /* two pages are for snapshots */
	b->ops->close(b);
	c = open_cpu(1000, 0, false);
	assert_int_equal(c->base.ops->memory(&c->base).pages, MAX_STATES * 5);
	c->base.ops->close(&c->base);

	g.kv_bytes = page_bytes(false) - 1;
	assert_ok(m1b_cpu_open(1, NULL, &b, &err));
	assert_int_equal(b->ops->configure(b, &g, &err), M1_E_NO_MEMORY);
	assert_non_null(strstr(err.hint, "kv_cache_size"));
	b->ops->close(b);
	/* by itself, a share of the memory: enough here; and with weights beyond it, something is left */
	g.kv_bytes = 0;
	g.weight_bytes = SIZE_MAX;
	assert_ok(m1b_cpu_open(1, NULL, &b, &err));
	assert_ok(b->ops->configure(b, &g, &err));
	assert_int_equal(b->ops->memory(b).pages, MAX_STATES * 5);
	b->ops->close(b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_life),
		cmocka_unit_test(test_random_life_f32),
		cmocka_unit_test(test_reservations_hold),
		cmocka_unit_test(test_budgets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
