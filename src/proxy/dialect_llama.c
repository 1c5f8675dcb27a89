/*
 * dialect_llama.c - llama.cpp's /completion.
 *
 * The sampler's stages are named, in our order, because the server's default ones would change the text. A token that
 * ends inside of a character is not sent until the character is whole, and then only the last one is: the others are
 * found again by their number and the text, or asked for whole (remote.c). It calls adapters by numbers, and lists none
 * among its models.
 */
#include <stdio.h>

#include "proxy/dialect.h"
#include "proxy/json_out.h"

static void
write_common(m1_buf *out, const int32_t *tokens, size_t n)
{
	m1_buf_puts(out, "{");
	m1_out_ids(out, "prompt", tokens, n);
	m1_out_raw(out, "cache_prompt", "true,\"return_tokens\":true");
}

static bool
write_ask(m1_buf *out, const m1_ask *ask)
{
	const m1_request *r = ask->request;

	write_common(out, r->tokens.data, r->tokens.len);
	m1_out_int(out, "n_predict", ask->n_tokens);
	m1_out_raw(out, "samplers", "[\"temperature\",\"top_k\",\"top_p\"]");
	m1_out_real(out, "temperature", r->sampling.temperature);
	m1_out_real(out, "top_p", r->sampling.top_p);
	m1_out_int(out, "top_k", r->sampling.top_k);
	m1_out_int(out, "seed", m1_out_seed(r->sampling.seed, ask->stretch));
	if (ask->whole)
		m1_out_flag(out, "stream", false);
	else
		m1_out_raw(out, "stream", "true,\"timings_per_token\":true,\"return_progress\":true");
	if (ask->grammar.len > 0)
		m1_out_text(out, "grammar", ask->grammar);
	return m1_buf_puts(out, "}");
}

static int
count_of(const m1_json *object, const char *key, int otherwise)
{
	int64_t n;

	if (!m1_json_is_int64(m1_json_get(object, key), &n) || n < 0 || n > INT32_MAX)
		return otherwise;
	return (int) n;
}

static bool
read_event(const m1_json *event, int known, m1_told *told)
{
	const m1_json *progress = m1_json_get(event, "prompt_progress");
	bool ok = true;

	(void) known;
	if (m1_told_failure(event, told))
		return true;
	told->cached = count_of(m1_json_get(event, "timings"), "cache_n", count_of(progress, "cache", -1));
	told->prefilled = count_of(progress, "processed", -1);
	told->generated = count_of(event, "tokens_predicted", 0);
	told->text = m1_json_text(m1_json_get(event, "content"));
	told->finished = m1_json_is(m1_json_get(event, "stop"), M1_JSON_TRUE);
	told->end_of_turn = m1_json_is_text(m1_json_get(event, "stop_type"), "eos");
	/* what tells how far the prompt is has a token that is none */
	m1_json_foreach (progress == NULL ? m1_json_get(event, "tokens") : NULL, id)
	{
		int64_t n;

		ok = ok && m1_json_is_int64(id, &n) && n >= 0 && n <= INT32_MAX && m1_ids_push(&told->ids, (int32_t) n);
	}
	return ok;
}

/*
 * A token is made the only choice by its bias; the server tells the probability that it had without. Each asks for the
 * token behind all others.
 */
static bool
write_score(m1_buf *out, const m1_score_ask *ask)
{
	char bias[48];

	write_common(out, ask->tokens, (size_t) ask->n_tokens - 1);
	snprintf(bias, sizeof bias, "[[%d,1e9]]", ask->tokens[ask->n_tokens - 1]);
	m1_out_raw(out, "logit_bias", bias);
	m1_out_raw(out, "n_predict", "1,\"n_probs\":1,\"temperature\":0,\"samplers\":[\"temperature\"],\"stream\":false");
	return m1_buf_puts(out, "}");
}

static bool
read_score(const m1_json *answer, const m1_score_ask *ask, double *logprob)
{
	const m1_json *one = m1_json_at(m1_json_get(answer, "completion_probabilities"), 0);
	int64_t id;

	if (!m1_json_is_int64(m1_json_get(one, "id"), &id) || id != ask->tokens[ask->n_tokens - 1] ||
		!m1_json_is(m1_json_get(one, "logprob"), M1_JSON_NUMBER))
		return false;
	*logprob = m1_json_real(m1_json_get(one, "logprob"));
	return true;
}

const m1_dialect m1_dialect_llama = {
	.name = "llama.cpp",
	.called = "llama.cpp",
	.path = "/completion",
	.takes_ids = true,
	.write_ask = write_ask,
	.read_event = read_event,
	.write_score = write_score,
	.read_score = read_score,
	.most_scored = 1,
};
