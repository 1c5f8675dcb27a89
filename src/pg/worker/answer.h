/*
 * answer.h - what the engine says, looked at as if it were hostile (answer.c).
 */
#ifndef M1PG_ANSWER_H
#define M1PG_ANSWER_H

#include "pg/m1pg.h"

#include "wire/message.h"

/* What was asked, as far as answers are judged by it, and what was answered so far. */
typedef struct M1Asked
{
	m1w_type	type;
	Size		text_len;		/* M1W_TOKENIZE: of its text */
	bool		stream;			/* M1W_GENERATE: as they are in the request */
	bool		ids;
	bool		scored;
	bool		has_progress;
	m1w_progress progress;		/* the last that was told */
} M1Asked;

extern void m1pg_note_asked(M1Asked *asked, m1w_type type, const char *payload, Size len);
/* NULL: the frame may be believed, whoever reads it, and is kept in mind. Else what is wrong with it, a sentence. */
extern const char *m1pg_judge_answer(M1Asked *asked, m1w_type type, const char *payload, Size len);
/* The same of what the engine says of itself. */
extern const char *m1pg_judge_ready(const m1w_ready *ready);
extern const char *m1pg_judge_cache(const m1w_cache *cache);

#endif							/* M1PG_ANSWER_H */
