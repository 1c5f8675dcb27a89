/* micro.c - see micro.h. */
#include "train/micro.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"

/* ---- checks ---- */

static m1_status
check_experts(const m1_sequence *s, int number, const m1_config *c, m1_error *err)
{
	const int k = c->experts_per_token;

	for (size_t i = 0; i < (size_t) s->n * (size_t) c->layers; i++)
	{
		const uint16_t *chosen = s->experts + i * (size_t) k;

		for (int rank = 0; rank < k && chosen[0] != M1_NO_EXPERT; rank++)
		{
			for (int before = 0; before < rank; before++)
				if (chosen[before] == chosen[rank])
					return m1_fail(err, M1_E_INVALID_ARGUMENT, "sequence %d has an expert twice for one token", number);
			if (chosen[rank] >= c->experts)
				return m1_fail(err, M1_E_INVALID_ARGUMENT, "sequence %d is to take expert %d of %d", number,
							   chosen[rank], c->experts);
		}
	}
	return M1_OK;
}

static bool
is_allowed(const m1_sequence *s, int token)
{
	const uint64_t *bits = s->allowed != NULL ? s->allowed[token] : NULL;
	const int32_t id = s->tokens[token];

	return bits == NULL || (bits[id / 64] >> (id % 64) & 1) != 0;
}

static m1_status
check_sequence(const m1_sequence *s, int number, const m1_objective *o, const m1_config *c, int max_context,
			   m1_error *err)
{
	if (s->n < 1 || s->prompt < 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "sequence %d has no tokens", number);
	if (s->n > max_context)
		return m1_fail(err, M1_E_CONTEXT_OVERFLOW, "sequence %d of %d tokens does not fit the context of %d", number,
					   s->n, max_context);
	for (int t = 0; t < s->n; t++)
		if (s->tokens[t] < 0 || s->tokens[t] >= c->vocab_size)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "sequence %d: token id %d is outside the vocabulary of %d",
						   number, s->tokens[t], c->vocab_size);
	for (int t = 1; t < s->n; t++)
		if (t >= s->prompt && !is_allowed(s, t))
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "sequence %d: its constraint does not allow token %d", number,
						   t);
	if (o->loss != M1_LOSS_CE && s->old_logprob == NULL)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "sequence %d has no log-probabilities of the old policy", number);
	if (o->loss == M1_LOSS_GRPO && o->kl != 0.0f && s->ref_logprob == NULL)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "sequence %d has no log-probabilities of the reference", number);
	return s->experts != NULL ? check_experts(s, number, c, err) : M1_OK;
}

static m1_status
check_objective(const m1_objective *o, m1_error *err)
{
	if (!(o->temperature > 0.0f) || !isfinite(o->temperature) || !(o->tokens >= 0.0))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "impossible temperature or number of tokens of a loss");
	if (!isfinite(o->cap) || !isfinite(o->low) || !isfinite(o->high) || !isfinite(o->kl) || !isfinite(o->balance))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "a coefficient of the loss is no number");
	return M1_OK;
}

/* ---- order ---- */

static int
compare_floats(const float *a, const float *b, int n)
{
	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	return memcmp(a, b, (size_t) n * sizeof *a);
}

static int
compare_experts(const m1_member *x, const m1_member *y)
{
	const uint16_t *a = x->sequence->experts;
	const uint16_t *b = y->sequence->experts;

	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	return memcmp(a, b, (size_t) x->sequence->n * x->experts * sizeof *a);
}

/* The bits that are known of a token. */
static const uint64_t *
bits_of(const m1_member *x, int token)
{
	return x->sequence->allowed != NULL ? x->sequence->allowed[token] : NULL;
}

static int
compare_allowed(const m1_member *x, const m1_member *y)
{
	int order = 0;

	for (int t = 0; order == 0 && t < x->sequence->n; t++)
	{
		const uint64_t *a = bits_of(x, t);
		const uint64_t *b = bits_of(y, t);

		if (a == NULL || b == NULL)
			order = (a != NULL) - (b != NULL);
		else
			order = memcmp(a, b, x->words * sizeof *a);
	}
	return order;
}

/* By everything that the computation depends on. */
static int
compare_contents(const m1_member *x, const m1_member *y)
{
	const m1_sequence *a = x->sequence;
	const m1_sequence *b = y->sequence;
	const int n = a->n < b->n ? a->n : b->n;
	int order = memcmp(a->tokens, b->tokens, (size_t) n * sizeof *a->tokens);

	if (order == 0)
		order = (a->n > b->n) - (a->n < b->n);
	if (order == 0)
		order = (a->prompt > b->prompt) - (a->prompt < b->prompt);
	if (order == 0)
		order = compare_floats(&a->advantage, &b->advantage, 1);
	if (order == 0)
		order = compare_floats(a->weight, b->weight, n);
	if (order == 0)
		order = compare_floats(a->old_logprob, b->old_logprob, n);
	if (order == 0)
		order = compare_floats(a->ref_logprob, b->ref_logprob, n);
	if (order == 0)
		order = compare_experts(x, y);
	return order != 0 ? order : compare_allowed(x, y);
}

/* Those that share first, side by side. */
static int
by_share_and_contents(const void *a, const void *b)
{
	const m1_member *x = a;
	const m1_member *y = b;

	if (x->sequence->share != y->sequence->share)
		return x->sequence->share < y->sequence->share ? -1 : 1;
	return compare_contents(x, y);
}

static int
by_members(const void *a, const void *b)
{
	const m1_unit *x = a;
	const m1_unit *y = b;
	int order = 0;

	for (int i = 0; order == 0 && i < x->n && i < y->n; i++)
		order = compare_contents(&x->members[i], &y->members[i]);
	return order != 0 ? order : (x->n > y->n) - (x->n < y->n);
}

/* Tokens that two sequences have in common at their beginning, and experts to take, but one at least of each left. */
static int
common_beginning(const m1_member *x, const m1_member *y)
{
	const m1_sequence *a = x->sequence;
	const m1_sequence *b = y->sequence;
	const size_t experts = x->experts;
	const int most = (a->n < b->n ? a->n : b->n) - 1;
	int n = 0;

	if ((a->experts == NULL) != (b->experts == NULL))
		return 0;
	while (n < most && a->tokens[n] == b->tokens[n] &&
		   (a->experts == NULL || memcmp(a->experts + (size_t) n * experts, b->experts + (size_t) n * experts,
										 experts * sizeof *a->experts) == 0))
		n++;
	return n;
}

static void
measure_unit(m1_unit *u)
{
	int shared = u->n > 1 ? u->members[0].sequence->n : 0;

	for (int i = 1; i < u->n; i++)
	{
		const int common = common_beginning(&u->members[0], &u->members[i]);

		shared = common < shared ? common : shared;
	}
	u->shared = shared;
	u->rows = shared;
	for (int i = 0; i < u->n; i++)
		u->rows += u->members[i].sequence->n - shared;
}

/* Members that turn out to have nothing in common become units of their own. */
static void
make_units(m1_ordered *o, int n)
{
	for (int i = 0, members; i < n; i += members)
	{
		m1_unit u = {.members = o->members + i, .n = 1};

		while (i + u.n < n && u.members->sequence->share >= 0 &&
			   u.members[u.n].sequence->share == u.members->sequence->share)
			u.n++;
		members = u.n;
		measure_unit(&u);
		if (u.shared > 0)
			o->units[o->n_units++] = u;
		for (int j = 0; u.shared == 0 && j < members; j++)
		{
			m1_unit *single = &o->units[o->n_units++];

			*single = (m1_unit){.members = u.members + j, .n = 1};
			measure_unit(single);
		}
	}
	m1_sort(o->units, (size_t) o->n_units, sizeof *o->units, by_members);
}

static void
count(m1_ordered *o, const m1_sequence *s)
{
	const int first = s->prompt > 1 ? s->prompt : 1;

	o->tokens += s->n;
	if (s->n <= first)
		return;
	o->learned += s->n - first;
	o->completions++;
}

m1_status
m1_order(const m1_sequence *sequences, int n, const m1_objective *objective, const m1_config *c, int max_context,
		 m1_ordered *o, m1_error *err)
{
	m1_status status = check_objective(objective, err);

	*o = (m1_ordered){0};
	if (status == M1_OK && n < 1)
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "there are no sequences to learn from");
	for (int i = 0; status == M1_OK && i < n; i++)
		status = check_sequence(&sequences[i], i, objective, c, max_context, err);
	if (status != M1_OK)
		return status;
	o->members = calloc((size_t) n, sizeof *o->members);
	o->units = calloc((size_t) n, sizeof *o->units);
	if (o->members == NULL || o->units == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %d sequences", n);
	for (int i = 0; i < n; i++)
	{
		o->members[i] = (m1_member){.sequence = &sequences[i],
									.experts = (size_t) c->layers * (size_t) c->experts_per_token,
									.words = ((size_t) c->vocab_size + 63) / 64};
		count(o, &sequences[i]);
	}
	m1_sort(o->members, (size_t) n, sizeof *o->members, by_share_and_contents);
	make_units(o, n);
	for (int i = 0; i < o->n_units; i++)
	{
		o->rows += o->units[i].rows;
		o->most_rows = o->units[i].rows > o->most_rows ? o->units[i].rows : o->most_rows;
	}
	return M1_OK;
}

void
m1_ordered_free(m1_ordered *o)
{
	free(o->members);
	free(o->units);
	*o = (m1_ordered){0};
}

/* ---- micro-batches ---- */

int
m1_micro_units(const m1_ordered *o, int first, int rows)
{
	int n = 1;
	int taken = o->units[first].rows;

	while (first + n < o->n_units && taken + o->units[first + n].rows <= rows)
		taken += o->units[first + n++].rows;
	return n;
}

/* Appends tokens [from, to) of a sequence as a span. */
static void
add_span(m1_micro *m, const m1_sequence *s, int from, int to, int parent, int copies)
{
	m1b_span *span = &m->span_list[m->spans.n++];

	*span = (m1b_span){.row = m->spans.n_rows,
					   .n_rows = to - from,
					   .parent = parent,
					   .start = from,
					   .is_parent = copies > 1,
					   .state = m->spans.n_states};
	m->spans.n_states += m1b_span_states(span->n_rows, span->is_parent);
	for (int t = from; t < to; t++)
	{
		const int row = m->spans.n_rows++;

		m->tokens[row] = s->tokens[t];
		m->copies[row] = (float) copies;
		m->source[row] = (m1_row_source){.sequence = s, .token = t};
	}
}

/* Appends what is predicted of a sequence, whose tokens from `shared` on are in the last span. */
static void
add_targets(m1_micro *m, const m1_ordered *o, const m1_sequence *s, const m1_objective *objective, int shared_row,
			int shared)
{
	const m1b_span *own = &m->span_list[m->spans.n - 1];
	const int first = s->prompt > 1 ? s->prompt : 1;
	const double tokens = objective->tokens > 0.0 ? objective->tokens : (double) o->learned;
	const bool by_sequence = objective->loss == M1_LOSS_GRPO;

	for (int t = first; t < s->n; t++)
		if (s->logprob != NULL || s->entropy != NULL || m1_loss_counts(objective, s, t))
			m->targets[m->n_targets++] =
				(m1_target){.sequence = s,
							.token = t,
							.row = t - 1 < shared ? shared_row + t - 1 : own->row + t - 1 - shared,
							.scale = by_sequence ? 1.0 / ((double) o->completions * (s->n - first)) : 1.0 / tokens};
}

static void
add_unit(m1_micro *m, const m1_ordered *o, const m1_unit *u, const m1_objective *objective)
{
	const int shared_row = m->spans.n_rows;
	const int parent = u->shared > 0 ? m->spans.n : -1;

	if (u->shared > 0)
		add_span(m, u->members[0].sequence, 0, u->shared, -1, u->n);
	for (int i = 0; i < u->n; i++)
	{
		const m1_sequence *s = u->members[i].sequence;

		add_span(m, s, u->shared, s->n, parent, 1);
		add_targets(m, o, s, objective, shared_row, u->shared);
	}
}

m1_status
m1_micro_build(const m1_ordered *o, int first, int n_units, const m1_objective *objective, m1_micro *m, m1_error *err)
{
	size_t rows = 0;
	size_t spans = 0;
	size_t tokens = 0;

	for (int i = first; i < first + n_units; i++)
	{
		const m1_unit *u = &o->units[i];

		rows += (size_t) u->rows;
		spans += (size_t) u->n + 1;
		tokens += (size_t) u->rows + (size_t) u->shared * (size_t) (u->n - 1);
	}
	*m = (m1_micro){0};
	m->span_list = calloc(spans, sizeof *m->span_list);
	m->tokens = calloc(rows, sizeof *m->tokens);
	m->copies = calloc(rows, sizeof *m->copies);
	m->source = calloc(rows, sizeof *m->source);
	m->targets = calloc(tokens, sizeof *m->targets);
	m->spans.at = m->span_list;
	if (!m->span_list || !m->tokens || !m->copies || !m->source || !m->targets)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a batch of %zu tokens", tokens);
	for (int i = first; i < first + n_units; i++)
		add_unit(m, o, &o->units[i], objective);
	return M1_OK;
}

void
m1_micro_free(m1_micro *m)
{
	free(m->span_list);
	free(m->tokens);
	free(m->copies);
	free(m->source);
	free(m->targets);
	*m = (m1_micro){0};
}
