/*
 * batches.h - which examples are learnt in which step. Some examples are held out; the others are shuffled anew for
 * every epoch, and taken in that order, as many at a time as a step's tokens allow. All of it follows from the seed, so
 * that a training that goes on later continues as if it had never stopped.
 *
 * Sequences of a batch stay sequences of their own: nothing flows from one to another. One thread.
 */
#ifndef M1_TRAIN_BATCHES_H
#define M1_TRAIN_BATCHES_H

#include "train/examples.h"

typedef struct m1_batches m1_batches;

/*
 * held_out: the share of the examples that are not trained on, below 1; one at least if it is above 0. tokens: of a
 * batch; an example that is longer is a batch of its own. The examples must outlive the batches. M1_E_INVALID_ARGUMENT
 * when nothing is left to train on.
 */
m1_status m1_batches_create(const m1_examples *examples, double held_out, size_t tokens, uint64_t seed,
							m1_batches **out, m1_error *err);
void m1_batches_free(m1_batches *b);

/* The numbers of the examples that are held out, and of those in the next batch. Valid until the next call. */
const uint32_t *m1_batches_held_out(const m1_batches *b, size_t *n);
const uint32_t *m1_batches_next(m1_batches *b, size_t *n);
/* How many of those held out, from number `at` of them on, are as many tokens as a batch. */
size_t m1_batches_held_out_at(const m1_batches *b, size_t at);

/*
 * Steps of so many whole epochs; an epoch's last batch may be a small one. goes_on is asked for each of them:
 * M1_E_CANCELLED when it was not to go on.
 */
m1_status m1_batches_steps(m1_batches *b, int epochs, m1_goes_on goes_on, void *context, uint64_t *steps,
						   m1_error *err);

/* Where the next batch begins. */
typedef struct m1_batch_place
{
	uint64_t epoch; /* from 0 */
	uint64_t at;	/* examples of it that were taken */
} m1_batch_place;

m1_batch_place m1_batches_place(const m1_batches *b);
/* Goes there. M1_E_CORRUPT when there is no such place. */
m1_status m1_batches_go(m1_batches *b, m1_batch_place place, m1_error *err);

#endif
