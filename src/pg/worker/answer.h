/*
 * answer.h - what the engine says, looked at as if it were hostile (answer.c).
 */
#ifndef M1PG_ANSWER_H
#define M1PG_ANSWER_H

#include "pg/shared.h"

/* What was asked, as far as answers are judged by it, and what was answered so far. */
typedef struct M1Asked
{
	m1w_type	type;
	Size		text_len;		/* M1W_TOKENIZE: of its text */
	m1w_wanted	wanted;
	Size		n_ids;			/* tokens of a prompt of ids; 0 = it is none */
	bool		stream;			/* M1W_GENERATE: as they are in the request */
	int			max_tokens;
	bool		scored;
	bool		logprobs;		/* of the written tokens */
	bool		keep;
	uint64		fetch_offset;	/* M1W_FETCH: of the piece */
	uint32		fetch_most;
	uint8		fetch_part;
	Size		lesson_tokens;	/* M1W_LESSON */
	bool		update;
	bool		want_logprobs;
	bool		has_progress;
	m1w_progress progress;		/* the last that was told */
	/* of an answer that is judged in parts: */
	Size		judged;			/* bytes of it */
	int32		n_tokens;		/* of which it has the ids */
	int32		last_end;		/* of a token, in the text */
	int			n_tail;
	char		tail[4];		/* a character of which the rest is in the next part */
} M1Asked;

extern void m1pg_note_asked(M1Asked *asked, const M1Slot *slot);
/*
 * Whether answers of this type are judged and passed on part by part, because
 * they may be as long as the frames' messages: nobody is to have them whole
 * but who asked.
 */
extern bool m1pg_answers_in_parts(m1w_type type);
/* As m1pg_judge_answer, for a part of such an answer behind which `more` bytes follow. */
extern const char *m1pg_judge_part(M1Asked *asked, m1w_type type, const char *part, Size len, Size more);
/* NULL: the frame may be believed, whoever reads it, and is kept in mind. Else what is wrong with it, a sentence. */
extern const char *m1pg_judge_answer(M1Asked *asked, m1w_type type, const char *payload, Size len);
/* The same of what the engine says of itself. */
extern const char *m1pg_judge_ready(const m1w_ready *ready);
/* Of a greeting that comes again: only where the model runs may have changed. */
extern const char *m1pg_judge_news(const m1w_ready *ready);
extern const char *m1pg_judge_cache(const m1w_cache *cache);

#endif							/* M1PG_ANSWER_H */
