/*
 * learn_calls.h - what the engine is told and asked about trainings and adapters (learn_calls.c): src/wire/README.md.
 */
#ifndef M1PG_LEARN_CALLS_H
#define M1PG_LEARN_CALLS_H

#include "pg/client/exchange.h"

/*
 * Who asks: InvalidOid is whoever calls, in the transaction that is open; otherwise no transaction is, and the request
 * is made as this role.
 */
typedef struct M1LearnCaller
{
	Oid			role;
	const char *function;		/* that usage and activity show */
	/* Where there is no room for a request yet: whether it is to be tried again, now. NULL = never. */
	bool		(*refused) (void *arg, const m1_error *error);
	void	   *arg;
} M1LearnCaller;

/* All return false when the engine refuses or is not there: *error. *learned may be NULL; its slices are palloc'd. */
extern bool m1pg_learn_put(const M1LearnCaller *c, const m1w_bytes *piece, m1_error *error);
extern bool m1pg_learn_begin(const M1LearnCaller *c, const m1w_training *t, m1w_learned *learned, m1_error *error);
extern bool m1pg_learn_lesson(const M1LearnCaller *c, const m1w_lesson *l, m1w_learned *learned, m1_error *error);
extern bool m1pg_learn_serve(const M1LearnCaller *c, m1_slice name, m1_slice from, m1_error *error);
/* What is not there is forgotten already. */
extern bool m1pg_learn_forget(const M1LearnCaller *c, m1w_kept kind, m1_slice name, m1_error *error);
/* All of a part of a training, palloc'd: what is `most` bytes long, or shorter, is believed. */
extern bool m1pg_learn_fetch(const M1LearnCaller *c, m1_slice name, m1w_part part, uint64 most, m1_slice *bytes,
							 m1_error *error);

/* What is kept of one answer; and the tokens of what the model is to write. Both palloc'd. */
extern bool m1pg_learn_sample(const M1LearnCaller *c, const m1w_generate *g, m1w_done *done, m1_error *error);
extern bool m1pg_learn_tokenize(const M1LearnCaller *c, m1_slice reply, m1w_id_slice *ids, m1_error *error);

/*
 * Raises that answers, each of which may be believed by itself, cannot all be true: this training has lost its engine's
 * trust. `detail` is a sentence.
 */
pg_noreturn extern void m1pg_learn_disbelieve(const char *detail);

/* Bytes of an adapter or a training that travel, and are stored, together. */
#define M1PG_PIECE_BYTES (1 << 20)

#endif							/* M1PG_LEARN_CALLS_H */
