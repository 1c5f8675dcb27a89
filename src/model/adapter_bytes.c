/* adapter_bytes.c - see adapter_bytes.h. */
#include "model/adapter_bytes.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/random.h"

#define MAGIC "m1lora01"

typedef struct head
{
	char magic[8];
	char base[16];
	int64_t updates;
	uint32_t moments; /* 0 or 1 */
	uint32_t targets;
} head;

/* What becomes of one weight. */
typedef struct entry
{
	int32_t role, layer, expert;
	int32_t rank;
	float scale;
	int32_t whole; /* 0 or 1 */
} entry;

static entry
entry_of(const m1_adapter_target *t)
{
	return (entry){.role = (int32_t) t->role,
				   .layer = t->layer,
				   .expert = t->expert,
				   .rank = t->rank,
				   .scale = t->scale,
				   .whole = t->whole != NULL};
}

bool
m1_adapter_put_head(const m1_adapter *a, const m1_adapter_facts *facts, m1_buf *out)
{
	int n;
	const m1_adapter_target *targets = m1_adapter_targets(a, &n);
	head h = {.magic = MAGIC, .updates = facts->updates, .moments = facts->moments, .targets = (uint32_t) n};

	memcpy(h.base, facts->base, sizeof h.base);
	m1_buf_append(out, &h, sizeof h);
	for (int i = 0; i < n; i++)
	{
		const entry e = entry_of(&targets[i]);

		m1_buf_append(out, &e, sizeof e);
	}
	return !out->failed;
}

/* ---- reading ---- */

typedef struct reader
{
	const char *entries;
	uint32_t n;
	uint32_t at; /* the next */
} reader;

/* The weights are asked for in the order of the entries: each is the next one's, or is left as it is. */
static m1_status
next_entry(void *context, m1_role role, int layer, int expert, m1_adapter_shape *shape, m1_error *err)
{
	reader *r = context;
	entry e;

	if (r->at == r->n)
		return M1_OK;
	memcpy(&e, r->entries + r->at * sizeof e, sizeof e);
	if (e.role != (int32_t) role || e.layer != layer || e.expert != expert)
		return M1_OK;
	if (e.rank < 0 || e.rank > M1_ADAPTER_MAX_RANK || !isfinite(e.scale) || (e.whole != 0 && e.whole != 1) ||
		(e.whole == 1 && !m1_adapter_may_replace(role)) || (e.whole == 0 && e.rank == 0))
		return m1_fail(err, M1_E_CORRUPT, "the bytes of the adapter say what cannot be of weight %u", r->at);
	r->at++;
	*shape = (m1_adapter_shape){.rank = e.rank, .scale = e.scale, .whole = e.whole == 1};
	return M1_OK;
}

static m1_status
no_adapter(m1_error *err)
{
	return m1_fail(err, M1_E_CORRUPT, "these are not the bytes of an adapter");
}

static m1_status
read_head(m1_slice bytes, const char *base, head *h, m1_error *err)
{
	if (bytes.len < sizeof *h)
		return no_adapter(err);
	memcpy(h, bytes.data, sizeof *h);
	if (memcmp(h->magic, MAGIC, sizeof h->magic) != 0 || h->moments > 1 || h->updates < 0 ||
		h->targets > (bytes.len - sizeof *h) / sizeof(entry))
		return no_adapter(err);
	if (memcmp(h->base, base, sizeof h->base) == 0)
		return M1_OK;
	m1_fail(err, M1_E_INVALID_ARGUMENT, "the adapter was made for another model");
	m1_error_detail(err, "It names the base %.16s; the model is %.16s.", h->base, base);
	return M1_E_INVALID_ARGUMENT;
}

static m1_status
read_numbers(m1_adapter *a, m1_slice bytes, bool moments, const char **rest, m1_error *err)
{
	size_t n;
	float *numbers = m1_adapter_numbers(a, &n);

	if (bytes.len != (moments ? 3 : 1) * n * sizeof *numbers)
		return m1_fail(err, M1_E_CORRUPT, "the adapter has %zu bytes of numbers instead of %zu", bytes.len,
					   (moments ? 3 : 1) * n * sizeof *numbers);
	memcpy(numbers, bytes.data, n * sizeof *numbers);
	for (size_t i = 0; i < n; i++)
		if (!isfinite(numbers[i]))
			return m1_fail(err, M1_E_CORRUPT, "the adapter holds values that are not finite numbers");
	*rest = moments ? bytes.data + n * sizeof *numbers : NULL;
	return M1_OK;
}

m1_status
m1_adapter_of_bytes(m1_slice bytes, const char *base, const m1_config *config, m1_adapter **out,
					m1_adapter_facts *facts, const char **moments, m1_error *err)
{
	head h = {.targets = 0};
	reader r;
	m1_slice rest;
	m1_status status = read_head(bytes, base, &h, err);

	*out = NULL;
	if (status != M1_OK)
		return status;
	r = (reader){.entries = bytes.data + sizeof h, .n = h.targets};
	rest = (m1_slice){r.entries + r.n * sizeof(entry), bytes.len - sizeof h - r.n * sizeof(entry)};
	if ((status = m1_adapter_build(config, next_entry, &r, out, err)) == M1_OK && (r.at != r.n || r.n == 0))
		status = m1_fail(err, M1_E_CORRUPT, "the adapter changes weights that the model does not have");
	if (status == M1_OK)
		status = read_numbers(*out, rest, h.moments == 1, moments, err);
	if (status != M1_OK)
	{
		m1_adapter_free(*out);
		*out = NULL;
		return status;
	}
	*facts = (m1_adapter_facts){.updates = h.updates, .moments = h.moments == 1};
	memcpy(facts->base, h.base, sizeof h.base);
	return M1_OK;
}

/* ---- which adapter ---- */

void
m1_adapter_digest(const m1_adapter *a, char text[M1_DIGEST_SIZE])
{
	uint64_t hash = 0;
	int targets;
	size_t n;
	const m1_adapter_target *t = m1_adapter_targets(a, &targets);
	const float *numbers = m1_adapter_numbers(a, &n);

	for (int i = 0; i < targets; i++)
	{
		const entry e = entry_of(&t[i]);
		uint32_t words[sizeof e / sizeof(uint32_t)];

		memcpy(words, &e, sizeof e);
		for (size_t k = 0; k < sizeof words / sizeof *words; k++)
			hash = m1_random_bits(hash, words[k]);
	}
	for (size_t i = 0; i < n; i++)
	{
		uint32_t bits;

		memcpy(&bits, &numbers[i], sizeof bits);
		hash = (hash ^ bits) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 29;
	}
	snprintf(text, M1_DIGEST_SIZE, "%016" PRIx64, m1_random_bits(hash, n));
}
