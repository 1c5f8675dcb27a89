/* share.c - see share.h. */
#include "engine/share.h"

void
m1_share_want(m1_share *s, m1_share_user user, bool wants)
{
	s->wants[user] = wants;
}

bool
m1_share_is_wanted(const m1_share *s)
{
	return s->wants[M1_SHARE_REQUESTS] || s->wants[M1_SHARE_LESSONS];
}

bool
m1_share_has_turn(const m1_share *s, m1_share_user user)
{
	const m1_share_user other = user == M1_SHARE_REQUESTS ? M1_SHARE_LESSONS : M1_SHARE_REQUESTS;

	if (s->share <= 0.0 || (s->wants[other] && s->last == user))
		return false;
	if (user == M1_SHARE_REQUESTS && !s->alone)
		return false;
	return s->credit >= s->cost[user];
}

static void
note_cost(m1_share *s, m1_share_user user, double ms)
{
	s->cost[user] += (ms - s->cost[user]) / 4.0;
}

static void
take(m1_share *s, m1_share_user user, double ms)
{
	s->credit -= ms;
	s->last = user;
	note_cost(s, user, ms);
}

/* Without anybody to spend it, credit would grow for as long as others are served, and all be spent at once. */
static void
earn(m1_share *s, double ms)
{
	if (m1_share_is_wanted(s))
		s->credit += ms * s->share / (1.0 - s->share);
}

void
m1_share_free_step(m1_share *s, int background, double ms)
{
	s->credit = 0.0;
	s->alone = false;
	if (background > 0)
		note_cost(s, M1_SHARE_REQUESTS, ms);
}

/*
 * What a step of so many tokens of others takes, by those that had no more: the least of late, because what a busy
 * machine adds is nobody's turn.
 */
static void
measure_others(m1_share *s, int others, double ms)
{
	if (s->others != others || ms < s->others_ms)
		s->others_ms = ms;
	else
		s->others_ms += (ms - s->others_ms) / 64.0;
	s->others = others;
}

/* Of a step with trainings. After another number of others' tokens, their part of all: that is never too much. */
static double
others_part(const m1_share *s, int others, int background, double ms)
{
	const double part = ms * others / (others + background);

	if (s->others != others || s->others_ms < part)
		return part;
	return s->others_ms < ms ? s->others_ms : ms;
}

void
m1_share_step(m1_share *s, int others, int background, double ms)
{
	double own;

	s->alone = background == 0;
	if (s->alone)
	{
		measure_others(s, others, ms);
		own = s->others_ms;
	}
	else
	{
		own = others_part(s, others, background, ms);
		take(s, M1_SHARE_REQUESTS, ms - own);
	}
	earn(s, own);
}

void
m1_share_piece(m1_share *s, bool beside, double ms)
{
	if (beside)
		take(s, M1_SHARE_LESSONS, ms);
	else
	{
		s->credit = 0.0;
		note_cost(s, M1_SHARE_LESSONS, ms);
	}
}
