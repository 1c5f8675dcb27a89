/*
 * summary.h - summarizing a text of any length, part by part (summarize.c), for
 * summarize() and the aggregates.
 *
 * Functions that return false have said why in task->error, and have left
 * nothing open. What they return is palloc'd in the current memory context.
 */
#ifndef M1PG_SUMMARY_H
#define M1PG_SUMMARY_H

#include "pg/m1pg.h"

#include "wire/message.h"

typedef struct M1Summary
{
	const char *function;		/* as the activity view shows it */
	m1w_generate request;		/* all but the prompt */
	m1_slice	instruction;	/* UTF-8 */
	int			context;		/* tokens of prompt and reply together */
	int			overhead;		/* prompt tokens beside the document */
	int			reply;			/* tokens that a summary may need */
	int			wish;			/* max_tokens of the last pass, as the caller gave it; 0 = none */
	m1_error	error;
} M1Summary;

/*
 * Waits for the model. The instruction may be NULL for the default one; it and
 * the texts of the request must live as long as the task.
 */
extern bool m1pg_summary_init(M1Summary *task, const char *function, const m1_slice *instruction, int max_tokens);
extern bool m1pg_summary_count(M1Summary *task, m1_slice text, int *tokens);
/* Tokens of document that one pass can take. */
extern int	m1pg_summary_room(const M1Summary *task);
/* One round: the summaries of as many parts as it takes, joined. */
extern bool m1pg_summary_round(M1Summary *task, m1_slice document, m1_slice *joined, int *parts);
/* Rounds come to an end only when each makes less of the text. */
extern bool m1pg_summary_check_shorter(M1Summary *task, int before, int now);
/* As many rounds as it takes, then one summary. */
extern bool m1pg_summary_whole(M1Summary *task, m1_slice document, int tokens, m1_slice *summary);

#endif							/* M1PG_SUMMARY_H */
