/* batches.c - see batches.h. */
#include "train/batches.h"

#include <math.h>
#include <stdlib.h>

#include "base/random.h"

struct m1_batches
{
	const m1_examples *examples;
	size_t tokens;
	uint64_t seed;
	uint32_t *held_out; /* [n_held_out] */
	size_t n_held_out;
	uint32_t *trained; /* [n_trained] the same in every epoch */
	uint32_t *order;   /* [n_trained] of this one */
	size_t n_trained;
	m1_batch_place place;
};

/* Fisher and Yates's: every order is as likely. */
static void
shuffle(uint32_t *numbers, size_t n, uint64_t seed)
{
	for (size_t i = n; i > 1; i--)
	{
		const size_t j = (size_t) (m1_random_uniform(seed, i) * (double) i);
		const uint32_t swapped = numbers[i - 1];

		numbers[i - 1] = numbers[j];
		numbers[j] = swapped;
	}
}

/* The order of an epoch depends on nothing but the seed and the epoch. */
static void
order_epoch(m1_batches *b, uint64_t epoch)
{
	for (size_t i = 0; i < b->n_trained; i++)
		b->order[i] = b->trained[i];
	shuffle(b->order, b->n_trained, m1_random_bits(b->seed, epoch + 1));
}

m1_status
m1_batches_create(const m1_examples *examples, double held_out, size_t tokens, uint64_t seed, m1_batches **out,
				  m1_error *err)
{
	const size_t n = examples->n;
	const size_t n_held_out = held_out > 0.0 ? (size_t) fmax(1.0, floor((double) n * held_out)) : 0;
	m1_batches *b;

	*out = NULL;
	if (n <= n_held_out || n > UINT32_MAX)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "there are no examples to train on");
		m1_error_detail(err, "Of %zu examples, %zu are held out and %zu were skipped because of their length.", n,
						n_held_out < n ? n_held_out : n, examples->counts.skipped);
		return M1_E_INVALID_ARGUMENT;
	}
	b = calloc(1, sizeof *b);
	if (b == NULL || (b->held_out = malloc(n * sizeof *b->held_out)) == NULL ||
		(b->order = malloc(n * sizeof *b->order)) == NULL)
	{
		m1_batches_free(b);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the order of %zu examples", n);
	}
	*b = (m1_batches){examples, tokens,			seed, b->held_out, n_held_out, b->held_out + n_held_out,
					  b->order, n - n_held_out, {0}};
	for (size_t i = 0; i < n; i++)
		b->held_out[i] = (uint32_t) i;
	shuffle(b->held_out, n, m1_random_bits(seed, 0));
	order_epoch(b, 0);
	*out = b;
	return M1_OK;
}

void
m1_batches_free(m1_batches *b)
{
	if (b == NULL)
		return;
	free(b->held_out); /* those trained on lie behind them */
	free(b->order);
	free(b);
}

const uint32_t *
m1_batches_held_out(const m1_batches *b, size_t *n)
{
	*n = b->n_held_out;
	return b->held_out;
}

/* How many of these examples, from `at` on, make a batch. */
static size_t
batch_of(const m1_batches *b, const uint32_t *numbers, size_t all, size_t at)
{
	const size_t *begins = b->examples->begins;
	size_t tokens = 0;
	size_t n = 0;

	for (; at + n < all; n++)
	{
		const uint32_t i = numbers[at + n];

		tokens += begins[i + 1] - begins[i];
		if (n > 0 && tokens > b->tokens)
			break;
	}
	return n;
}

static size_t
batch_at(const m1_batches *b, size_t at)
{
	return batch_of(b, b->order, b->n_trained, at);
}

size_t
m1_batches_held_out_at(const m1_batches *b, size_t at)
{
	return batch_of(b, b->held_out, b->n_held_out, at);
}

/* An epoch that is over is followed by the next one. */
static void
skip_end(m1_batches *b)
{
	if (b->place.at < b->n_trained)
		return;
	b->place = (m1_batch_place){b->place.epoch + 1, 0};
	order_epoch(b, b->place.epoch);
}

const uint32_t *
m1_batches_next(m1_batches *b, size_t *n)
{
	const uint32_t *numbers;

	skip_end(b);
	numbers = b->order + b->place.at;
	*n = batch_at(b, (size_t) b->place.at);
	b->place.at += *n;
	return numbers;
}

m1_status
m1_batches_steps(m1_batches *b, int epochs, m1_goes_on goes_on, void *context, uint64_t *steps, m1_error *err)
{
	m1_status status = M1_OK;

	*steps = 0;
	for (int epoch = 0; epoch < epochs && status == M1_OK; epoch++)
	{
		order_epoch(b, (uint64_t) epoch);
		for (size_t at = 0; at < b->n_trained; ++*steps)
			at += batch_at(b, at);
		if (!goes_on(context))
			status = m1_fail(err, M1_E_CANCELLED, "interrupted");
	}
	order_epoch(b, b->place.epoch);
	return status;
}

m1_batch_place
m1_batches_place(const m1_batches *b)
{
	return b->place;
}

m1_status
m1_batches_go(m1_batches *b, m1_batch_place place, m1_error *err)
{
	if (place.at > b->n_trained)
		return m1_fail(err, M1_E_CORRUPT, "the training's place is beyond the examples");
	b->place = place;
	order_epoch(b, place.epoch);
	return M1_OK;
}
