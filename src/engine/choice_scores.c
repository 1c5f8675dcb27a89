/* choice_scores.c - see choice_scores.h. */
#include "engine/choice_scores.h"

#include <math.h>
#include <stdlib.h>

#include "grammar/choices.h"

struct m1_choice_scores
{
	size_t n;
	m1_ids *choices;	 /* [n] */
	double *logprobs;	 /* [n]: of what has been read of each; normalised once done */
	float *weights;		 /* [n]: logprobs as the sampler takes them */
	m1_sampler *sampler; /* over the choices */
	int longest;
	int vocab;
	int32_t eos;
	bool begun;
	size_t current; /* the choice that is being fed */
	size_t fed;		/* of its tokens */
};

static m1_status
encode_choices(m1_choice_scores *s, const m1_tokenizer *t, char **choices, m1_work *work, m1_error *err)
{
	for (size_t i = 0; i < s->n; i++)
	{
		m1_status status =
			m1_tokenizer_encode(t, m1_slice_of(choices[i]), M1_ADDED_NONE, &s->choices[i], NULL, work, err);

		if (status != M1_OK)
			return status;
		if ((int) s->choices[i].len + 1 > s->longest)
			s->longest = (int) s->choices[i].len + 1;
	}
	return M1_OK;
}

m1_status
m1_choice_scores_create(const m1_tokenizer *t, m1_slice choices, int vocab, m1_work *work, m1_choice_scores **out,
						m1_error *err)
{
	m1_choice_scores *s = calloc(1, sizeof *s);
	char **texts = NULL;
	size_t n = 0;
	m1_status status;

	*out = NULL;
	if (s == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
	s->vocab = vocab;
	s->eos = m1_tokenizer_eos(t);
	if ((status = m1_choices_parse(choices, &texts, &n, err)) == M1_OK)
	{
		s->choices = calloc(n, sizeof *s->choices);
		s->logprobs = calloc(n, sizeof *s->logprobs);
		s->weights = calloc(n, sizeof *s->weights);
		if (s->choices == NULL || s->logprobs == NULL || s->weights == NULL)
			status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
		else
			s->n = n;
	}
	if (status == M1_OK && (status = encode_choices(s, t, texts, work, err)) == M1_OK)
		status = m1_sampler_create((int) n, NULL, &s->sampler, err);
	m1_choices_free(texts, n);
	if (status != M1_OK)
	{
		m1_choice_scores_free(s);
		return status;
	}
	*out = s;
	return M1_OK;
}

void
m1_choice_scores_free(m1_choice_scores *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n; i++)
		m1_ids_free(&s->choices[i]);
	free(s->choices);
	free(s->logprobs);
	free(s->weights);
	m1_sampler_free(s->sampler);
	free(s);
}

int
m1_choice_scores_longest(const m1_choice_scores *s)
{
	return s->longest;
}

/* The logarithm of the sum of exp(logits): what makes probabilities of them. */
static double
log_total(const float *logits, int vocab)
{
	int best = 0;
	double sum = 1.0; /* the best one's share, in units of itself */

	for (int i = 1; i < vocab; i++)
		best = logits[i] > logits[best] ? i : best;
	for (int i = 0; i < vocab; i++)
		if (i != best)
			sum += expf(logits[i] - logits[best]);
	return (double) logits[best] + log(sum);
}

/* Divides by the probability of all choices together. */
static void
normalise(m1_choice_scores *s)
{
	double max = s->logprobs[0];
	double sum = 0.0;

	for (size_t i = 1; i < s->n; i++)
		max = s->logprobs[i] > max ? s->logprobs[i] : max;
	for (size_t i = 0; i < s->n; i++)
		sum += exp(s->logprobs[i] - max);
	for (size_t i = 0; i < s->n; i++)
		s->logprobs[i] -= max + log(sum);
}

m1_score_feed
m1_choice_scores_read(m1_choice_scores *s, const float *logits, int32_t *token)
{
	const double total = log_total(logits, s->vocab);
	const m1_ids *choice = &s->choices[s->current];

	if (!s->begun)
	{
		/* the first token of each */
		s->begun = true;
		for (size_t i = 0; i < s->n; i++)
			s->logprobs[i] = logits[s->choices[i].data[0]] - total;
	}
	else
	{
		const int32_t next = s->fed < choice->len ? choice->data[s->fed] : s->eos;

		s->logprobs[s->current] += logits[next] - total;
		if (s->fed < choice->len)
		{
			s->fed++;
			*token = next;
			return M1_SCORE_NEXT;
		}
		s->current++;
	}
	/* one choice is certain, whatever its tokens */
	if (s->current == s->n || s->n == 1)
	{
		normalise(s);
		return M1_SCORE_DONE;
	}
	s->fed = 1;
	*token = s->choices[s->current].data[0];
	return M1_SCORE_BACK;
}

int
m1_choice_scores_count(const m1_choice_scores *s)
{
	return (int) s->n;
}

const m1_ids *
m1_choice_scores_tokens(const m1_choice_scores *s, int i)
{
	return &s->choices[i];
}

void
m1_choice_scores_tell(m1_choice_scores *s, int i, double logprob)
{
	s->logprobs[i] = logprob;
}

void
m1_choice_scores_told(m1_choice_scores *s)
{
	normalise(s);
}

m1_slice
m1_choice_scores_logprobs(const m1_choice_scores *s)
{
	return (m1_slice){(const char *) s->logprobs, s->n * sizeof *s->logprobs};
}

const m1_ids *
m1_choice_scores_choose(m1_choice_scores *s, const m1_sampling *sampling, uint64_t number)
{
	for (size_t i = 0; i < s->n; i++)
		s->weights[i] = (float) s->logprobs[i];
	return &s->choices[m1_sampler_pick(s->sampler, sampling, number, NULL, s->weights).id];
}
