/* request.c - see request.h. */
#include "engine/request.h"

#include <stdlib.h>
#include <string.h>

#include "grammar/tool_calls.h"
#include "text/chat.h"
#include "text/markup.h"

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
	if (g->score_choices && (g->tools.len > 0 || g->logprobs))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "a scored choice cannot call tools, nor is it written by tokens");
	if (g->ids.len > 0 && g->logprobs)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the continuation of token ids has no log probabilities");
	if (g->constraint == M1W_CONSTRAINT_NONE)
		return M1_OK;
	if (g->constraint_text.len == 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the constraint is empty");
	if (g->ids.len > 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the continuation of token ids cannot be constrained");
	if (g->n_stops > 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "a constrained answer cannot have stop strings");
	return M1_OK;
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
		else if (g->stops[i].len > M1_MAX_STOP_BYTES)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "stop string %u has %zu bytes: more than %d", i + 1,
						   g->stops[i].len, M1_MAX_STOP_BYTES);
	if ((status = m1_sampling_check(&sampling, err)) != M1_OK)
		return status;
	return check_constraint(g, err);
}

/* Whether the context holds a prompt of so many tokens, and what is left to a reply at least. */
static m1_status
check_length(const m1_model *model, size_t prompt, int reply, m1_error *err)
{
	const char *limit = model->kv_limits_context ? "kv_cache_size" : "max_context";

	if (prompt + (size_t) reply <= (size_t) model->max_context)
		return M1_OK;
	m1_fail(err, M1_E_CONTEXT_OVERFLOW, "the prompt is longer than the context");
	m1_error_detail(err, "The prompt has %zu tokens; the context holds %d, of which the reply needs at least one.",
					prompt, model->max_context);
	m1_error_hint(err, "Shorten the prompt, split it (summarize does), or raise {%s}.", limit);
	return M1_E_CONTEXT_OVERFLOW;
}

static m1_status
copy_ids(const m1_model *model, m1w_id_slice ids, m1_ids *tokens, m1_error *err)
{
	const m1_status status = check_length(model, ids.len, 0, err);

	if (status != M1_OK)
		return status;
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
					.tools = g->tools,
					.hides_tools = m1_tool_choice_is_none(g->tool_choice),
					.work = r->work};
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
	r->tools = bounds.tools;
	if (bounds.tools)
		m1_reply_take_calls(r->reply);
	else if (!m1_tool_choice_is_free(g->tool_choice))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "tool_choice is given without tools");
	r->bounds[0] = (int) bounds.system;
	r->bounds[1] = (int) bounds.history;
	r->bounds[2] = (int) bounds.template;
	return M1_OK;
}

/* The prompt is in tokens: checks that it fits and makes room for the whole reply. */
static m1_status
fit_context(const m1_model *model, m1_request *r, int reply_tokens, m1_error *err)
{
	const m1_status status = check_length(model, r->tokens.len, reply_tokens > 0, err);

	if (status != M1_OK)
		return status;
	r->prompt_tokens = (int) r->tokens.len;
	r->max_tokens = reply_tokens;
	if (reply_tokens > model->max_context - r->prompt_tokens - r->scoring_tokens)
		r->max_tokens = model->max_context - r->prompt_tokens - r->scoring_tokens;
	if (r->max_tokens < 0) /* what scoring needs is left out: it says so itself */
		r->max_tokens = 0;
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

static m1_status
no_memory(m1_error *err)
{
	return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the reply");
}

/* Reads a token of the reply, which is text and not the end of turn. */
static m1_status
read_token(m1_request *r, int32_t id, m1_error *err)
{
	if (!m1_reply_push(r->reply, id))
		return no_memory(err);
	return r->cursor == NULL ? M1_OK : m1_cursor_read(r->cursor, m1_tokenizer_piece(r->tokenizer, id), err);
}

/* The token that comes next in the reply, which may not have begun. */
/* The token comes next, and nothing else could have. */
static m1_status
push_written(m1_request *r, int32_t id, m1_error *err)
{
	const size_t at = r->tokens.len - (size_t) r->prompt_tokens;
	const m1_status status = r->kept == NULL ? M1_OK : m1_kept_reply_written(r->kept, at, id, err);

	if (status != M1_OK)
		return status;
	return m1_ids_push(&r->tokens, id) ? M1_OK : no_memory(err);
}

static m1_status
push_sampled(m1_request *r, int32_t id, m1_error *err)
{
	const size_t at = r->tokens.len - (size_t) r->prompt_tokens;
	const uint64_t *mask = r->cursor != NULL ? r->mask : NULL;
	const m1_status status = r->kept == NULL ? M1_OK : m1_kept_reply_sampled(r->kept, at, mask, err);

	if (status != M1_OK)
		return status;
	return m1_ids_push(&r->tokens, id) ? M1_OK : no_memory(err);
}

/* Writes text on the model's behalf: it is fed like sampled tokens and read like them. *n: how many tokens it is. */
static m1_status
write_for_model(m1_request *r, const char *text, int *n, m1_error *err)
{
	m1_ids ids = {0};
	m1_status status = m1_tokenizer_encode(r->tokenizer, m1_slice_of(text), M1_ADDED_PLAIN, &ids, NULL, NULL, err);

	for (size_t i = 0; i < ids.len && status == M1_OK; i++)
		if ((status = push_written(r, ids.data[i], err)) == M1_OK)
			status = read_token(r, ids.data[i], err);
	*n = (int) ids.len;
	m1_ids_free(&ids);
	return status;
}

/* The answer will be what the constraint of g says; before anything of the reply is written. */
static m1_status
constrain(m1_request *r, const m1_model *model, m1_constraints *constraints, const m1w_generate *g, m1_error *err)
{
	m1_constraint *c;
	m1_status status = m1_constraints_get(constraints, g, r->work, &c, err);

	if (status != M1_OK)
		return status;
	r->form = g->constraint != M1W_CONSTRAINT_NONE;
	if (r->form)
		m1_reply_keep_breaks(r->reply);
	r->room = m1_constraint_room(c);
	r->cursor = m1_cursor_create(c);
	r->mask = calloc((size_t) m1_constraints_vocabulary(constraints)->words, sizeof *r->mask);
	r->logits = malloc((size_t) model->config.vocab_size * sizeof *r->logits);
	m1_constraint_release(c);
	if (r->cursor == NULL || r->mask == NULL || r->logits == NULL)
		return no_memory(err);
	if (!g->score_choices)
		return M1_OK;
	status =
		m1_choice_scores_create(r->tokenizer, g->constraint_text, model->config.vocab_size, r->work, &r->scores, err);
	if (status == M1_OK)
		r->room = m1_choice_scores_longest(r->scores);
	/* a snapshot may have one page that it shares with nobody */
	r->scoring_tokens = model->page_tokens;
	return status;
}

/* A choice is never cut short. */
static m1_status
fit_choices(const m1_request *r, int reply_tokens, m1_error *err)
{
	const int longest = r->scores == NULL ? 0 : m1_choice_scores_longest(r->scores);

	if (longest == 0 || r->max_tokens >= longest)
		return M1_OK;
	if (reply_tokens >= longest)
		m1_fail(err, M1_E_CONTEXT_OVERFLOW, "the prompt leaves too little of the context to the answer");
	else
		m1_fail(err, M1_E_INVALID_ARGUMENT, "max_tokens is smaller than the longest choice");
	m1_error_detail(err, "The longest choice has %d tokens, with the end of turn; there is room for %d.", longest,
					r->max_tokens > 0 ? r->max_tokens : 0);
	return reply_tokens >= longest ? M1_E_CONTEXT_OVERFLOW : M1_E_INVALID_ARGUMENT;
}

static m1_status
fit_logprobs(m1_request *r, int top, m1_error *err)
{
	if (r->max_tokens > M1_MAX_LOGPROBS / (top + 1))
	{
		m1_fail(err, M1_E_UNSUPPORTED, "log probabilities of %d tokens, with %d alternatives each, are too many",
				r->max_tokens, top);
		m1_error_detail(err, "There may be %d together.", M1_MAX_LOGPROBS);
		m1_error_hint(err, "Lower {max_tokens}, or ask for fewer alternatives.");
		return M1_E_UNSUPPORTED;
	}
	r->logprobs = m1_token_logprobs_create(r->tokenizer, top);
	return r->logprobs != NULL ? M1_OK : no_memory(err);
}

static m1_status
find_adapter(const m1_model *model, m1_slice name, int *number, m1_error *err)
{
	*number = m1_adapter_set_acquire(model->adapters, name);
	if (*number > 0 || name.len == 0)
		return M1_OK;
	m1_fail(err, M1_E_NOT_FOUND, "there is no adapter \"%.*s\"", (int) (name.len < 60 ? name.len : 60), name.data);
	m1_error_detail(err, "%d are loaded with model \"%.100s\".", m1_adapter_set_count(model->adapters), model->name);
	return M1_E_NOT_FOUND;
}

static m1_status
keep_reply(m1_request *r, const m1_model *model, m1_error *err)
{
	if (r->scores != NULL)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "what is kept of a reply is of one that was sampled, not scored");
	return m1_kept_reply_create(model, r->prompt_tokens, r->max_tokens, &r->kept, err);
}

static m1_status
fill_generate(const m1_model *model, m1_constraints *constraints, const m1w_generate *g, m1_request *r, m1_error *err)
{
	m1_status status;
	int n;

	r->sampling = (m1_sampling){.temperature = g->temperature, .top_p = g->top_p, .top_k = g->top_k, .seed = g->seed};
	r->cache_owner = g->cache_owner;
	r->thinking_budget = g->thinking_budget;
	r->stream = g->stream != 0;
	r->background = g->background != 0;
	r->adapters = model->adapters;
	if ((status = find_adapter(model, g->adapter, &r->adapter, err)) != M1_OK)
		return status;
	if (r->kind == M1_REQUEST_IDS)
		status = copy_ids(model, g->ids, &r->tokens, err);
	else
		status = render_chat(model, g, r, err);
	if (status == M1_OK && (g->constraint != M1W_CONSTRAINT_NONE || r->tools))
		status = constrain(r, model, constraints, g, err);
	/* Counted as prompt, so that a small max_tokens is all for the answer. */
	if (status == M1_OK && r->kind == M1_REQUEST_CHAT && r->thinking_budget == 0)
		status = write_for_model(r, M1_THINK_NOTHING, &n, err);
	if (status == M1_OK)
		status = fit_context(model, r, g->max_tokens, err);
	if (status == M1_OK)
		status = fit_choices(r, g->max_tokens, err);
	if (status == M1_OK && g->logprobs)
		status = fit_logprobs(r, g->top_logprobs, err);
	if (status == M1_OK && g->keep)
		status = keep_reply(r, model, err);
	return status;
}

m1_status
m1_request_create(const m1_model *model, m1_constraints *constraints, uint64_t id, const m1w_generate *g,
				  int loop_guard, m1_work *work, m1_request **out, m1_error *err)
{
	m1_request *r;
	m1_status status;

	*out = NULL;
	if ((status = check_generate(g, err)) != M1_OK)
		return status;
	if ((r = new_request(id, g->ids.len > 0 ? M1_REQUEST_IDS : M1_REQUEST_CHAT)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the request");
	r->loop_guard = loop_guard;
	r->work = work;
	if ((status = fill_generate(model, constraints, g, r, err)) != M1_OK)
	{
		m1_request_free(r);
		return status;
	}
	r->work = NULL;
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
	m1_buf_free(&r->chat);
	m1_cuts_free(&r->cuts);
	m1_cursor_free(r->cursor);
	free(r->mask);
	free(r->logits);
	m1_choice_scores_free(r->scores);
	m1_token_logprobs_free(r->logprobs);
	m1_kept_reply_free(r->kept);
	m1_adapter_set_release(r->adapters, r->adapter);
	free(r);
}

/* ---- feeding ---- */

int
m1_request_most_tokens(const m1_request *r)
{
	return r->prompt_tokens + r->max_tokens + r->scoring_tokens;
}

bool
m1_request_cut(m1_request *r, int prefill_chunk)
{
	return m1_cuts_make(&r->cuts, (m1_cut_scope){r->cache_owner, r->adapter}, r->tokens.data, r->prompt_tokens,
						prefill_chunk, r->bounds, M1_MAX_BOUNDS);
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

static m1_status
append(m1_request *r, int32_t id, m1_error *err)
{
	r->completion_tokens++;
	return push_sampled(r, id, err);
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

/* What the answer should have at least: its shortest form, and a share of the reply for a better one. */
#define ANSWER_SHARE 4
#define ANSWER_ROOM 1024
/* Tokens of the closing tag, at most. */
#define CLOSE_ROOM 12

/* Reasoning has come so far that the constrained answer would not find the room that is kept for it. */
static bool
room_is_needed(const m1_request *r)
{
	const int share = r->max_tokens / ANSWER_SHARE < ANSWER_ROOM ? r->max_tokens / ANSWER_SHARE : ANSWER_ROOM;

	return r->cursor != NULL && r->max_tokens - r->completion_tokens <= CLOSE_ROOM + r->room + share;
}

static bool
budget_is_spent(const m1_request *r)
{
	return m1_reply_where(r->reply) == M1_REPLY_REASONING &&
		   ((r->thinking_budget >= 0 && r->reasoning_tokens >= r->thinking_budget) || room_is_needed(r));
}

/* The closing tag is completion, not reasoning; it may be the last that max_tokens leaves room for. */
static m1_status
close_reasoning(m1_request *r, m1_error *err)
{
	int n;
	const char *tag = m1_reply_at_line_start(r->reply) ? M1_THINK_CLOSED : "\n" M1_THINK_CLOSED;
	m1_status status = write_for_model(r, tag, &n, err);

	r->reasoning_cut = true;
	r->completion_tokens += n;
	if (r->completion_tokens >= r->max_tokens)
		end(r, M1W_FINISH_LENGTH);
	return status;
}

/*
 * A constrained answer is there, and nothing could follow but the end of turn: it need not be waited for. After calls
 * of tools it is, where there is room, so that they count what the same reply counts without a constraint.
 */
static bool
answer_is_complete(m1_request *r)
{
	bool only;

	if (r->cursor == NULL || r->scores != NULL || (!r->form && r->completion_tokens < r->max_tokens))
		return false;
	return m1_cursor_at_end(r->cursor, &only) && only;
}

static m1_status
accept_chat(m1_request *r, int32_t id, m1_error *err)
{
	const m1_reply_state before = m1_reply_where(r->reply);
	m1_status status = append(r, id, err);

	if (status != M1_OK)
		return status;
	if (id == m1_tokenizer_eos(r->tokenizer))
	{
		end(r, M1W_FINISH_STOP);
		return M1_OK;
	}
	if ((status = read_token(r, id, err)) != M1_OK)
		return status;
	if (r->logprobs != NULL && !m1_token_logprobs_note(r->logprobs, before, r->reply))
		return no_memory(err);
	count_reasoning(r, before);
	if (m1_reply_where(r->reply) == M1_REPLY_STOPPED || answer_is_complete(r))
		end(r, M1W_FINISH_STOP);
	else if (r->loop_guard > 0 && r->sure_tokens >= r->loop_guard)
		end(r, M1W_FINISH_LOOP);
	else if (r->completion_tokens >= r->max_tokens)
		end(r, M1W_FINISH_LENGTH);
	else if (budget_is_spent(r))
		return close_reasoning(r, err);
	return M1_OK;
}

bool
m1_request_allows(m1_request *r, int32_t id)
{
	bool only;

	if (r->cursor == NULL)
		return true;
	if (id == m1_tokenizer_eos(r->tokenizer))
		return m1_cursor_at_end(r->cursor, &only);
	/* what looks like text is none: the reply does not get it */
	return !m1_tokenizer_is_special(r->tokenizer, id) &&
		   m1_cursor_allows(r->cursor, m1_tokenizer_piece(r->tokenizer, id));
}

m1_status
m1_request_accept(m1_request *r, m1b_pick pick, m1_error *err)
{
	m1_status status;

	r->sure_tokens = pick.probability > SURE_PROBABILITY ? r->sure_tokens + 1 : 0;
	if (r->kind == M1_REQUEST_CHAT)
	{
		status = accept_chat(r, pick.id, err);
		if (!r->ended && m1_request_at_scored_answer(r) && r->max_tokens - r->completion_tokens < r->room)
			end(r, M1W_FINISH_LENGTH);
		return status;
	}
	if ((status = append(r, pick.id, err)) == M1_OK && r->completion_tokens >= r->max_tokens)
		end(r, M1W_FINISH_LENGTH);
	return status;
}

/* ---- scored choices ---- */

bool
m1_request_at_scored_answer(const m1_request *r)
{
	bool only;

	return r->scores != NULL && m1_cursor_at_end(r->cursor, &only);
}

void
m1_request_rewind(m1_request *r)
{
	r->fed = r->answer_start;
	r->tokens.len = (size_t) r->answer_start;
}

m1_status
m1_request_choose(m1_request *r, m1_error *err)
{
	const m1_ids *choice = m1_choice_scores_choose(r->scores, &r->sampling, (uint64_t) r->completion_tokens);
	m1_status status = M1_OK;

	m1_request_rewind(r);
	for (size_t i = 0; i < choice->len && status == M1_OK; i++)
		if ((status = append(r, choice->data[i], err)) == M1_OK && !m1_reply_push(r->reply, choice->data[i]))
			status = no_memory(err);
	if (status != M1_OK)
		return status;
	r->completion_tokens++; /* the end of turn, which was scored with it */
	end(r, M1W_FINISH_STOP);
	return M1_OK;
}

/* ---- masks ---- */

void
m1_request_fill_mask(m1_request *r, int64_t *turn)
{
	r->mask_error.code =
		m1_cursor_mask(r->cursor, r->max_tokens - r->completion_tokens, turn, r->mask, &r->mask_done, &r->mask_error);
}

bool
m1_request_known_mask(m1_request *r)
{
	r->mask_error.code = M1_OK;
	r->mask_done = m1_cursor_known_mask(r->cursor, r->max_tokens - r->completion_tokens, r->mask);
	return r->mask_done;
}
