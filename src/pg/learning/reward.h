/*
 * reward.h - a reward: a function of SQL that says how good an answer is (reward.c).
 */
#ifndef M1PG_REWARD_H
#define M1PG_REWARD_H

#include "pg/m1pg.h"

#include "utils/jsonb.h"

typedef struct M1Reward
{
	char	   *name;			/* for messages */
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
 * The function name(text, jsonb, text) or else name(text, jsonb); or the one of that signature, if it is given with its
 * arguments. Raises what keeps it from being a reward, or the current user from calling it.
 */
extern void m1pg_reward_find(const char *name, M1Reward *reward);
/* Its name with schema and arguments, which no other function has at the same time. */
extern char *m1pg_reward_signature(const M1Reward *reward);
/*
 * The same function in a later transaction, and no other that may have got its signature since. Raises that it was
 * dropped, or that the current user may not call it any more.
 */
extern void m1pg_reward_find_again(Oid function, const char *signature, M1Reward *reward);
/*
 * What it says of an answer; NaN is NULL, no opinion. It runs as the role, read only, and within
 * minimax_m1.reward_timeout. Returns NULL, or why it says nothing.
 */
extern ErrorData *m1pg_reward_call(const M1Reward *reward, Oid role, const M1Graded *graded, double *value);

#endif							/* M1PG_REWARD_H */
