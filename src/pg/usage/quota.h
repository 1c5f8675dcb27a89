/*
 * quota.h - the quota of a role, at admission (quota.c).
 */
#ifndef M1PG_QUOTA_H
#define M1PG_QUOTA_H

#include "pg/m1pg.h"

#include "wire/message.h"

/* Tokens of the tag that closes a reasoning which max_tokens has cut, at most: they come on top of it. */
#define M1PG_MOST_CLOSING 16

/* What a role may, by its settings. */
typedef struct M1Quota
{
	int64		tokens_per_hour;	/* -1 = no limit */
	int64		max_concurrent; /* -1 = no limit */
	int			share;			/* how many places it gets where another role gets one: see turns.c */
	char		role_name[NAMEDATALEN];
} M1Quota;

/* Reads the catalog. */
extern void m1pg_quota_of(Oid role, M1Quota *quota);
/* The tokens that a request may take at most. */
typedef struct M1MostTokens
{
	int64		all;
	int64		reply;			/* of all */
} M1MostTokens;

extern M1MostTokens m1pg_most_tokens(const m1w_generate *g);
/* The same of ids that have no reply. */
extern M1MostTokens m1pg_most_tokens_of_ids(Size n);
/* What requests of the role may still take, and how many there are. The lock is to be held. */
extern int64 m1pg_reserved_by(Oid role, int *running);
/* false: *error says why, and when to try again. The lock is to be held. */
extern bool m1pg_quota_admits(const M1Quota *quota, Oid role, int64 tokens, m1_error *error);

#endif							/* M1PG_QUOTA_H */
