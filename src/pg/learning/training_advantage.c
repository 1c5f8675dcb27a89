/*
 * training_advantage.c
 *	  What an answer is worth beside the others to the same prompt.
 */
#include "pg/learning/training.h"

#include <math.h>

#include "utils/float.h"

/* Answers that use up the room they have are worth up to 1 less, so that length does not grow for its own sake. */
static double
length_penalty(const M1TrainingOptions *o, int tokens)
{
	int			over = tokens - (o->max_tokens - o->length_penalty);

	if (o->length_penalty == 0 || over <= 0)
		return 0;
	return Min(1.0, (double) over / o->length_penalty);
}

void
m1pg_training_shape(const M1TrainingOptions *o, M1Answer *a)
{
	if (a->reward_failed && o->reward_errors == M1_REWARD_ERRORS_ZERO)
		a->reward = 0;
	a->shaped = isnan(a->reward) ? a->reward : a->reward - length_penalty(o, a->done.completion_tokens);
}

typedef double (*Value) (const M1Answer *answer);

static double
reward_of(const M1Answer *a)
{
	return a->reward;
}

static double
shaped_of(const M1Answer *a)
{
	return a->shaped;
}

/* Of values that are measured in this unit. */
static double
deviation_of(const M1Answer *answers, int n, Value value, const M1Spread *s, double unit)
{
	double		squares = 0;

	for (int i = 0; i < n; i++)
	{
		double		from_mean = (value(&answers[i]) - s->mean) / unit;

		if (!isnan(from_mean))
			squares += from_mean * from_mean;
	}
	return s->n > 1 ? unit * sqrt(squares / (s->n - 1)) : get_float8_nan();
}

/* In the order of the answers: the same sums wherever they are made. */
static M1Spread
spread_of(const M1Answer *answers, int n, Value value)
{
	M1Spread	s = {.least = INFINITY, .most = -INFINITY};

	for (int i = 0; i < n; i++)
	{
		double		x = value(&answers[i]);

		if (isnan(x))
			continue;
		s.n++;
		s.mean += x;
		s.least = Min(s.least, x);
		s.most = Max(s.most, x);
	}
	s.mean = s.n > 0 ? s.mean / s.n : get_float8_nan();
	s.deviation = deviation_of(answers, n, value, &s, 1);
	/* the squares of what is very small are 0 */
	if (s.deviation == 0 && s.most > s.least)
		s.deviation = deviation_of(answers, n, value, &s, s.most - s.least);
	return s;
}

M1Spread
m1pg_spread_of_rewards(const M1Answer *answers, int n)
{
	return spread_of(answers, n, reward_of);
}

static void
judge_group(M1Group *g)
{
	int			n = 0;
	int			right = 0;
	int			worthless = 0;

	for (int i = 0; i < g->n; i++)
	{
		n += !isnan(g->answers[i].reward);
		right += g->answers[i].reward >= 1;
		worthless += g->answers[i].reward <= 0;
	}
	g->solved = n > 0 && right == n;
	g->hopeless = n > 0 && worthless == n;
	g->silent = n == 0;
}

/*
 * Who has no opinion of an answer says nothing about it, and equal rewards say nothing about any. Dr. GRPO leaves out
 * the division, which makes much of small differences.
 */
void
m1pg_training_advantages(M1Method method, M1Group *g)
{
	M1Spread	s = spread_of(g->answers, g->n, shaped_of);

	judge_group(g);
	g->useful = s.n > 1 && s.most > s.least && s.deviation > 0;
	for (int i = 0; i < g->n; i++)
	{
		double		from_mean = g->answers[i].shaped - s.mean;

		if (!g->useful || isnan(from_mean))
			g->answers[i].advantage = 0;
		else
			g->answers[i].advantage = (float) (method == M1_METHOD_DR_GRPO ? from_mean : from_mean / s.deviation);
	}
}
