/* schedule.c - see schedule.h. */
#include "train/schedule.h"

#include <math.h>
#include <string.h>

bool
m1_decay_parse(const char *name, m1_decay *decay)
{
	static const char *const names[] = {
		[M1_DECAY_NONE] = "none",
		[M1_DECAY_LINEAR] = "linear",
		[M1_DECAY_EXPONENTIAL] = "exponential",
		[M1_DECAY_COSINE] = "cosine",
	};

	for (int i = M1_DECAY_NONE; i <= M1_DECAY_COSINE; i++)
		if (strcmp(name, names[i]) == 0)
		{
			*decay = (m1_decay) i;
			return true;
		}
	return false;
}

/* Not NaN, not infinite. */
static bool
is_rate(double x)
{
	return x >= 0.0 && x <= 1000.0;
}

m1_status
m1_schedule_check(const m1_schedule *s, m1_error *err)
{
	if (!is_rate(s->rate) || s->rate == 0.0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the learning rate must be above 0 and at most 1000");
	if (!is_rate(s->last))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the last learning rate must be from 0 to 1000");
	if (s->decay == M1_DECAY_EXPONENTIAL && s->last == 0.0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "an exponential decay needs a last learning rate above 0");
	if (s->steps == 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "a training needs at least one step");
	if (s->warmup_steps > s->steps || s->decay_steps > s->steps - s->warmup_steps)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "warm-up and decay have more steps than the training");
		m1_error_detail(err, "They have %llu and %llu steps of %llu.", (unsigned long long) s->warmup_steps,
						(unsigned long long) s->decay_steps, (unsigned long long) s->steps);
		return M1_E_INVALID_ARGUMENT;
	}
	return M1_OK;
}

double
m1_schedule_rate(const m1_schedule *s, uint64_t step)
{
	const uint64_t decaying = s->decay_steps > 0 ? s->decay_steps : s->steps - s->warmup_steps;
	const uint64_t done = step + 1; /* as if after the step, so that the first rate is above 0 and the last is `last` */
	double x;

	if (done < s->warmup_steps)
		return s->rate * (double) done / (double) s->warmup_steps;
	if (s->decay == M1_DECAY_NONE || decaying == 0 || done <= s->steps - decaying)
		return s->rate;
	x = done >= s->steps ? 1.0 : (double) (done - (s->steps - decaying)) / (double) decaying;
	switch (s->decay)
	{
		case M1_DECAY_LINEAR:
			return s->rate + (s->last - s->rate) * x;
		case M1_DECAY_EXPONENTIAL:
			return s->rate * pow(s->last / s->rate, x);
		default:
			return s->last + (s->rate - s->last) * 0.5 * (1.0 + cos(3.14159265358979323846 * x));
	}
}
