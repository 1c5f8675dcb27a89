/* losses.c - see losses.h. */
#include "train/losses.h"

#include <math.h>
#include <stddef.h>

m1_objective
m1_objective_of(m1_loss_kind loss)
{
	m1_objective o = {.loss = loss, .temperature = 1.0f, .cap = 2.0f, .low = 0.2f, .high = 0.2f};

	if (loss == M1_LOSS_GRPO)
		o.kl = 0.04f;
	if (loss == M1_LOSS_DAPO)
		o.high = 0.28f;
	return o;
}

static float
weight_of(const m1_sequence *s, int token)
{
	return s->weight != NULL ? s->weight[token] : 1.0f;
}

bool
m1_loss_counts(const m1_objective *o, const m1_sequence *s, int token)
{
	if (token < 1 || token < s->prompt)
		return false;
	if (o->loss == M1_LOSS_CE)
		return weight_of(s, token) != 0.0f;
	return s->advantage != 0.0f || (o->loss == M1_LOSS_GRPO && o->kl != 0.0f);
}

/* min(r A, clip(r) A), whose gradient is r A inside the trust region and on its good side, and 0 elsewhere. */
static m1_token_loss
trust_region(const m1_objective *o, double advantage, double ratio)
{
	const double least = 1.0 - (double) o->low;
	const double most = 1.0 + (double) o->high;
	const double clipped = fmin(fmax(ratio, least), most);
	m1_token_loss loss = {.value = -fmin(ratio * advantage, clipped * advantage)};

	loss.clipped = (advantage > 0.0 && ratio > most) || (advantage < 0.0 && ratio < least);
	loss.coefficient = loss.clipped ? 0.0f : (float) (ratio * advantage);
	return loss;
}

/* kl (e^d - d - 1) with d = log ref - log pi */
static void
add_divergence(const m1_objective *o, double d, m1_token_loss *loss)
{
	loss->value += (double) o->kl * (exp(d) - d - 1.0);
	loss->coefficient -= (float) ((double) o->kl * (1.0 - exp(d)));
}

m1_token_loss
m1_loss_of(const m1_objective *o, const m1_sequence *s, int token, double logprob, double scale)
{
	const double ratio = o->loss == M1_LOSS_CE ? 1.0 : exp(logprob - (double) s->old_logprob[token]);
	m1_token_loss loss;

	switch (o->loss)
	{
		case M1_LOSS_CE:
			loss = (m1_token_loss){.coefficient = weight_of(s, token)};
			loss.value = -(double) loss.coefficient * logprob;
			break;
		case M1_LOSS_CISPO:
			loss = (m1_token_loss){.clipped = ratio > (double) o->cap};
			loss.coefficient = (float) (fmin(ratio, (double) o->cap) * (double) s->advantage);
			loss.value = -(double) loss.coefficient * logprob;
			break;
		default:
			loss = trust_region(o, s->advantage, ratio);
			if (o->loss == M1_LOSS_GRPO && o->kl != 0.0f)
				add_divergence(o, (double) s->ref_logprob[token] - logprob, &loss);
			break;
	}
	loss.value *= scale;
	loss.coefficient = (float) ((double) loss.coefficient * scale);
	return loss;
}

/* ---- advantages ---- */

static float
advantage_of(const float *reward, const int *group, int n, int i)
{
	double sum = 0.0;
	double squares = 0.0;
	bool equal = true;
	int members = 0;

	for (int j = 0; j < n; j++)
		if (group[j] == group[i])
		{
			sum += reward[j];
			equal = equal && reward[j] == reward[i];
			members++;
		}
	if (equal)
		return 0.0f;
	for (int j = 0; j < n; j++)
		if (group[j] == group[i])
			squares += ((double) reward[j] - sum / members) * ((double) reward[j] - sum / members);
	return (float) (((double) reward[i] - sum / members) / sqrt(squares / (members - 1)));
}

void
m1_advantages(const float *reward, const int *group, int n, float *advantage)
{
	for (int i = 0; i < n; i++)
		advantage[i] = advantage_of(reward, group, n, i);
}
