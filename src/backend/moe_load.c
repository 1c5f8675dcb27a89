/* moe_load.c - how the choices of experts are spread: see moe_load.h. */
#include "backend/moe_load.h"

#include <math.h>

/* Adds a row's probabilities of all experts. */
static void
add_probabilities(const float *logits, int experts, double copies, double *probability)
{
	float best = logits[0];
	double total = 0.0;

	for (int e = 1; e < experts; e++)
		best = fmaxf(best, logits[e]);
	for (int e = 0; e < experts; e++)
		total += exp((double) logits[e] - best);
	for (int e = 0; e < experts; e++)
		probability[e] += copies * exp((double) logits[e] - best) / total;
}

/* Whether an expert that was not chosen has a larger logit than one that was. */
static bool
differs(const m1b_moe_load *p, int t)
{
	const float *logits = p->kept->logits + (size_t) t * (size_t) p->experts;
	const int32_t *choice = p->kept->choice + (size_t) t * (size_t) p->top_k;
	float least = logits[choice[0]];

	for (int rank = 1; rank < p->top_k; rank++)
		least = fminf(least, logits[choice[rank]]);
	for (int e = 0; e < p->experts; e++)
	{
		bool chosen = false;

		for (int rank = 0; rank < p->top_k; rank++)
			chosen = chosen || choice[rank] == e;
		if (!chosen && logits[e] > least)
			return true;
	}
	return false;
}

void
m1b_moe_count_load(const m1b_moe_load *p)
{
	for (int t = 0; t < p->n; t++)
	{
		for (int rank = 0; rank < p->top_k; rank++)
			p->chosen[p->kept->choice[t * p->top_k + rank]] += p->copies[t];
		if (p->probability != NULL)
			add_probabilities(p->kept->logits + (size_t) t * (size_t) p->experts, p->experts, p->copies[t],
							  p->probability);
		*p->differ += p->kept->replay && differs(p, t);
	}
}
