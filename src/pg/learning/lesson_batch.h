/*
 * lesson_batch.h - the arrays of a lesson, sequence by sequence (lesson_batch.c).
 */
#ifndef M1PG_LESSON_BATCH_H
#define M1PG_LESSON_BATCH_H

#include "pg/m1pg.h"

#include "lib/stringinfo.h"
#include "utils/hsearch.h"
#include "wire/message.h"

/* Each grows by a sequence, or by its tokens, as m1w_lesson has them; those that stay empty are left out. */
typedef struct M1LessonBatch
{
	int			n;				/* sequences */
	int			n_tokens;
	double		weight;			/* the sum of weights, by which cross entropy has its mean */
	StringInfoData lengths;
	StringInfoData prompts;
	StringInfoData shares;
	StringInfoData advantages;
	StringInfoData ids;
	StringInfoData weights;
	StringInfoData old_logprobs;
	StringInfoData ref_logprobs;
	StringInfoData experts;
	StringInfoData masked;
	StringInfoData masks;		/* that differ: one takes a bit for each token of the vocabulary */
	StringInfoData mask_of;
	HTAB	   *found;			/* which there are, by their hashes */
} M1LessonBatch;

extern void m1pg_lesson_init(M1LessonBatch *b);
/* An answer that was sampled; those of one `share` have their prompt in common. */
extern void m1pg_lesson_add_answer(M1LessonBatch *b, const m1w_done *done, int share, float advantage);
/* An answer that is to be said, each of whose tokens counts 1. */
extern void m1pg_lesson_add_text(M1LessonBatch *b, m1w_id_slice prompt, m1w_id_slice answer, float weight);
/* What m1w_learned.logprobs has of the whole batch, instead of those that its answers were sampled with. */
extern void m1pg_lesson_set_logprobs(M1LessonBatch *b, m1_slice logprobs);
/* The same of the reference. */
extern void m1pg_lesson_set_reference(M1LessonBatch *b, m1_slice logprobs);
/* How far answers are from the reference: e^d - d - 1 of each token, with d = log ref - log old; sum and number. */
extern void m1pg_lesson_add_divergence(const M1LessonBatch *b, double *sum, int64 *n);
/* So much it takes in a message, about. */
extern Size m1pg_lesson_bytes(const M1LessonBatch *b);
extern void m1pg_lesson_fill(const M1LessonBatch *b, m1w_lesson *lesson);

#endif							/* M1PG_LESSON_BATCH_H */
