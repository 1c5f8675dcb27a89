/*
 * reward.h - a reward: a function of SQL that says how good an answer is (reward.c).
 */
#ifndef M1PG_REWARD_H
#define M1PG_REWARD_H

#include "pg/m1pg.h"

#include "utils/jsonb.h"

typedef struct M1Reward
{
	char	   *name;			/* as it was given */
	Oid			function;
	bool		wants_reasoning;	/* has a third argument */
} M1Reward;

/* What a reward looks at. */
typedef struct M1Graded
{
	text	   *answer;
	text	   *reasoning;		/* empty when there is none */
	Jsonb	   *example;
} M1Graded;

/*
 * The function name(text, jsonb, text) or name(text, jsonb). Raises what keeps it from being a reward, or the current
 * user from calling it.
 */
extern void m1pg_reward_find(const char *name, M1Reward *reward);
/*
 * What it says of an answer; NaN is NULL, no opinion. It runs as the role, read only, and within
 * minimax_m1.reward_timeout. Returns NULL, or why it says nothing.
 */
extern ErrorData *m1pg_reward_call(const M1Reward *reward, Oid role, const M1Graded *graded, double *value);

#endif							/* M1PG_REWARD_H */
