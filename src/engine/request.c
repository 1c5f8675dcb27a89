/* request.c - see request.h. */
#include "engine/request.h"

#include <stdlib.h>
#include <string.h>

#include "model/chat.h"

/* What closes the reasoning when its budget is spent, and what a reply without reasoning starts with. */
#define THINK_CLOSE "</think>\n\n"
#define THINK_NOTHING "<think>\n\n</think>\n\n"

#define SURE_PROBABILITY 0.99f

/* ---- creation ---- */

static bool
is_inside_character(char byte)
{
	return ((unsigned char) byte & 0xc0) == 0x80;
}

/* A constraint describes the answer alone, and all of it. */
static m1_status
check_constraint(const m1w_generate *g, m1_error *err)
{
	if (g->score_choices && g->constraint != M1W_CONSTRAINT_CHOICES)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "only a choice of strings can be scored");
	if (g->constraint == M1W_CONSTRAINT_NONE)
		return M1_OK;
	if (g->constraint_text.len == 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the constraint is empty");
	if (g->ids.len > 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the continuation of token ids cannot be constrained");
	if (g->n_stops > 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "a constrained answer cannot have stop strings");
	if (g->tools.len > 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "a constrained answer cannot call tools");
	return m1_fail(err, M1_E_UNSUPPORTED, "answers cannot be constrained yet");
}

static m1_status
check_generate(const m1w_generate *g, m1_error *err)
{
	m1_sampling sampling = {.temperature = g->temperature, .top_p = g->top_p, .top_k = g->top_k};
	const int sources = (g->prompt.len > 0) + (g->messages.len > 0) + (g->ids.len > 0);
	m1_status status;

	if (sources != 1)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT,
				sources == 0 ? "the prompt is empty" : "more than one kind of prompt given");
		m1_error_hint(err, "Give one of prompt, messages and ids.");
		return M1_E_INVALID_ARGUMENT;
	}
	if (g->max_tokens < 1)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "max_tokens must be at least 1");
	if (g->thinking_budget < -1)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "thinking_budget must be -1 (no limit) or more");
	if (g->template_len > g->prompt.len ||
		(g->template_len < g->prompt.len && is_inside_character(g->prompt.data[g->template_len])))
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "the prompt does not have a template of %u bytes", g->template_len);
		m1_error_detail(err, "It has %zu bytes, and a template ends between two characters.", g->prompt.len);
		return M1_E_INVALID_ARGUMENT;
	}
	for (uint32_t i = 0; i < g->n_stops; i++)
		if (g->stops[i].len == 0)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "stop string %u is empty", i + 1);
	if ((status = m1_sampling_check(&sampling, err)) != M1_OK)
		return status;
	return check_constraint(g, err);
}

static m1_status
copy_ids(const m1_model *model, m1w_id_slice ids, m1_ids *tokens, m1_error *err)
{
	for (size_t i = 0; i < ids.len; i++)
	{
		int32_t id = m1w_id_at(ids, i);

		if (id < 0 || id >= model->config.vocab_size)
		{
			m1_fail(err, M1_E_INVALID_ARGUMENT, "token id %d is outside the vocabulary", id);
			m1_error_detail(err, "The vocabulary has %d entries, numbered from 0.", model->config.vocab_size);
			return M1_E_INVALID_ARGUMENT;
		}
		m1_ids_push(tokens, id);
	}
	return tokens->failed ? m1_fail(err, M1_E_NO_MEMORY, "out of memory for %zu token ids", ids.len) : M1_OK;
}

static m1_status
render_chat(const m1_model *model, const m1w_generate *g, m1_request *r, m1_error *err)
{
	m1_chat chat = {.system = g->system,
					.prompt = g->prompt,
					.template_len = g->template_len,
					.messages = g->messages,
					.tools = g->tools};
	m1_chat_bounds bounds;
	m1_status status;

	if (model->tokenizer == NULL)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "model \"%s\" has no tokenizer", model->name);
		m1_error_hint(err, "Put its tokenizer.json or merges.txt into the checkpoint folder.");
		return M1_E_UNSUPPORTED;
	}
	r->tokenizer = model->tokenizer;
	r->reply = m1_reply_create(model->tokenizer, g->stops, g->n_stops);
	if (r->reply == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request");
	if ((status = m1_chat_render(model->tokenizer, &chat, &r->tokens, &bounds, err)) != M1_OK)
		return status;
	r->bounds[0] = (int) bounds.system;
	r->bounds[1] = (int) bounds.history;
	r->bounds[2] = (int) bounds.template;
	return M1_OK;
}

/* The prompt is in tokens: checks that it fits and makes room for the whole reply. */
static m1_status
fit_context(const m1_model *model, m1_request *r, int reply_tokens, m1_error *err)
{
	const size_t n = r->tokens.len;

	if (n + (reply_tokens > 0) > (size_t) model->max_context)
	{
		const char *limit = model->kv_limits_context ? "kv_cache_size" : "max_context";

		m1_fail(err, M1_E_CONTEXT_OVERFLOW, "the prompt is longer than the context");
		m1_error_detail(err, "The prompt has %zu tokens; the context holds %d, of which the reply needs at least one.",
						n, model->max_context);
		m1_error_hint(err, "Shorten the prompt, split it (summarize does), or raise minimax_m1.%s.", limit);
		return M1_E_CONTEXT_OVERFLOW;
	}
	r->prompt_tokens = (int) n;
	r->max_tokens = reply_tokens;
	if (reply_tokens > model->max_context - r->prompt_tokens)
		r->max_tokens = model->max_context - r->prompt_tokens;
	if (!m1_ids_reserve(&r->tokens, (size_t) r->max_tokens))
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a reply of %d tokens", r->max_tokens);
	return M1_OK;
}

static m1_request *
new_request(uint64_t id, m1_request_kind kind)
{
	m1_request *r = calloc(1, sizeof *r);

	if (r != NULL)
	{
		r->id = id;
		r->kind = kind;
	}
	return r;
}

/*
 * Writes text on the model's behalf: it is fed like sampled tokens and read like them. Returns the number of
 * tokens, -1 when memory ran out.
 */
static int
write_for_model(m1_request *r, const char *text)
{
	m1_ids ids = {0};
	bool ok = m1_tokenizer_encode(r->tokenizer, m1_slice_of(text), M1_ADDED_PLAIN, &ids, NULL, NULL) == M1_OK;
	int n = (int) ids.len;

	for (int i = 0; ok && i < n; i++)
		ok = m1_ids_push(&r->tokens, ids.data[i]) && m1_reply_push(r->reply, ids.data[i]);
	m1_ids_free(&ids);
	return ok ? n : -1;
}

static m1_status
fill_generate(const m1_model *model, const m1w_generate *g, m1_request *r, m1_error *err)
{
	m1_status status;

	r->sampling = (m1_sampling){.temperature = g->temperature, .top_p = g->top_p, .top_k = g->top_k, .seed = g->seed};
	r->cache_owner = g->cache_owner;
	r->thinking_budget = g->thinking_budget;
	r->stream = g->stream != 0;
	if (r->kind == M1_REQUEST_IDS)
		status = copy_ids(model, g->ids, &r->tokens, err);
	else
		status = render_chat(model, g, r, err);
	/* Counted as prompt, so that a small max_tokens is all for the answer. */
	if (status == M1_OK && r->kind == M1_REQUEST_CHAT && r->thinking_budget == 0 &&
		write_for_model(r, THINK_NOTHING) < 0)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request");
	if (status == M1_OK)
		status = fit_context(model, r, g->max_tokens, err);
	return status;
}

m1_status
m1_request_create(const m1_model *model, uint64_t id, const m1w_generate *g, int loop_guard, m1_request **out,
				  m1_error *err)
{
	m1_request *r;
	m1_status status;

	*out = NULL;
	if ((status = check_generate(g, err)) != M1_OK)
		return status;
	if ((r = new_request(id, g->ids.len > 0 ? M1_REQUEST_IDS : M1_REQUEST_CHAT)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request");
	r->loop_guard = loop_guard;
	if ((status = fill_generate(model, g, r, err)) != M1_OK)
	{
		m1_request_free(r);
		return status;
	}
	*out = r;
	return M1_OK;
}

m1_status
m1_request_create_logits(const m1_model *model, uint64_t id, m1w_id_slice ids, m1_request **out, m1_error *err)
{
	m1_request *r;
	m1_status status;

	*out = NULL;
	if (ids.len == 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the list of token ids is empty");
	if ((r = new_request(id, M1_REQUEST_LOGITS)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request");
	if ((status = copy_ids(model, ids, &r->tokens, err)) != M1_OK || (status = fit_context(model, r, 0, err)) != M1_OK)
	{
		m1_request_free(r);
		return status;
	}
	*out = r;
	return M1_OK;
}

void
m1_request_free(m1_request *r)
{
	if (r == NULL)
		return;
	m1_reply_free(r->reply);
	m1_ids_free(&r->tokens);
	m1_cuts_free(&r->cuts);
	free(r);
}

/* ---- feeding ---- */

bool
m1_request_cut(m1_request *r, int prefill_chunk)
{
	return m1_cuts_make(&r->cuts, r->cache_owner, r->tokens.data, r->prompt_tokens, prefill_chunk, r->bounds,
						M1_MAX_BOUNDS);
}

int
m1_request_pending(const m1_request *r)
{
	return (int) r->tokens.len - r->fed;
}

int
m1_request_next_chunk(const m1_request *r, int prefill_chunk)
{
	const int pending = m1_request_pending(r);

	if (r->fed < r->prompt_tokens)
		return m1_cuts_next(&r->cuts, r->fed, r->prompt_tokens) - r->fed;
	return pending < prefill_chunk ? pending : prefill_chunk;
}

/* ---- what a token means ---- */

static void
end(m1_request *r, m1w_finish finish)
{
	r->ended = true;
	/* A cut reasoning is worth telling when the answer itself came to its end. */
	r->finish = finish == M1W_FINISH_STOP && r->reasoning_cut ? M1W_FINISH_THINKING_BUDGET : finish;
}

static bool
append(m1_request *r, int32_t id)
{
	r->completion_tokens++;
	return m1_ids_push(&r->tokens, id);
}

/* Counts the token's share of the reasoning: the opening tag and what follows, not the closing tag. */
static void
count_reasoning(m1_request *r, m1_reply_state before)
{
	if (m1_reply_where(r->reply) != M1_REPLY_REASONING)
		return;
	if (before == M1_REPLY_OPENING)
		r->reasoning_tokens = r->completion_tokens;
	else
		r->reasoning_tokens++;
}

static bool
budget_is_spent(const m1_request *r)
{
	return r->thinking_budget >= 0 && m1_reply_where(r->reply) == M1_REPLY_REASONING &&
		   r->reasoning_tokens >= r->thinking_budget;
}

/* The closing tag is completion, not reasoning; it may be the last that max_tokens leaves room for. */
static bool
close_reasoning(m1_request *r)
{
	int n = write_for_model(r, m1_reply_at_line_start(r->reply) ? THINK_CLOSE : "\n" THINK_CLOSE);

	r->reasoning_cut = true;
	if (n < 0)
		return false;
	r->completion_tokens += n;
	if (r->completion_tokens >= r->max_tokens)
		end(r, M1W_FINISH_LENGTH);
	return true;
}

static bool
accept_chat(m1_request *r, int32_t id)
{
	const m1_reply_state before = m1_reply_where(r->reply);

	if (!append(r, id))
		return false;
	if (id == m1_tokenizer_eos(r->tokenizer))
	{
		end(r, M1W_FINISH_STOP);
		return true;
	}
	if (!m1_reply_push(r->reply, id))
		return false;
	count_reasoning(r, before);
	if (m1_reply_where(r->reply) == M1_REPLY_STOPPED)
		end(r, M1W_FINISH_STOP);
	else if (r->loop_guard > 0 && r->sure_tokens >= r->loop_guard)
		end(r, M1W_FINISH_LOOP);
	else if (r->completion_tokens >= r->max_tokens)
		end(r, M1W_FINISH_LENGTH);
	else if (budget_is_spent(r))
		return close_reasoning(r);
	return true;
}

bool
m1_request_accept(m1_request *r, m1_sample sample)
{
	r->sure_tokens = sample.probability > SURE_PROBABILITY ? r->sure_tokens + 1 : 0;
	if (r->kind == M1_REQUEST_CHAT)
		return accept_chat(r, sample.id);
	if (!append(r, sample.id))
		return false;
	if (r->completion_tokens >= r->max_tokens)
		end(r, M1W_FINISH_LENGTH);
	return true;
}
