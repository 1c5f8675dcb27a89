/*
 * training_advantage.c
 *	  What an answer is worth beside the others to the same prompt.
 */
#include "pg/learning/training.h"

#include <math.h>

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

typedef struct Spread
{
	int			n;				/* answers that have a reward */
	double		mean;
	double		deviation;		/* of a sample of them */
	double		least;
	double		most;
} Spread;

/* Of shaped rewards, in the order of the answers: the same sums wherever they are made. */
static Spread
spread_of(const M1Group *g)
{
	Spread		s = {.least = INFINITY, .most = -INFINITY};
	double		squares = 0;

	for (int i = 0; i < g->n; i++)
	{
		if (isnan(g->answers[i].shaped))
			continue;
		s.n++;
		s.mean += g->answers[i].shaped;
		s.least = Min(s.least, g->answers[i].shaped);
		s.most = Max(s.most, g->answers[i].shaped);
	}
	s.mean /= Max(s.n, 1);
	for (int i = 0; i < g->n; i++)
		if (!isnan(g->answers[i].shaped))
			squares += (g->answers[i].shaped - s.mean) * (g->answers[i].shaped - s.mean);
	s.deviation = s.n > 1 ? sqrt(squares / (s.n - 1)) : 0;
	return s;
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
}

/*
 * Who has no opinion of an answer says nothing about it, and equal rewards say nothing about any. Dr. GRPO leaves out
 * the division, which makes much of small differences.
 */
void
m1pg_training_advantages(M1Method method, M1Group *g)
{
	Spread		s = spread_of(g);

	judge_group(g);
	g->useful = s.n > 1 && s.most > s.least;
	for (int i = 0; i < g->n; i++)
	{
		double		from_mean = g->answers[i].shaped - s.mean;

		if (!g->useful || isnan(from_mean))
			g->answers[i].advantage = 0;
		else
			g->answers[i].advantage = (float) (method == M1_METHOD_DR_GRPO ? from_mean : from_mean / s.deviation);
	}
}
