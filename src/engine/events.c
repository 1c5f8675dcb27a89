/* events.c - see events.h. */
#include "engine/events.h"

#include "base/clock.h"
#include "engine/choice_scores.h"

/* Numbers of channels and limits of a request pass between the wire and the text as they are. */
_Static_assert((int) M1_CONTENT == (int) M1W_CONTENT && (int) M1_REASONING == (int) M1W_REASONING &&
				   (int) M1_TOOL_CALLS == (int) M1W_TOOL_CALLS && (int) M1_CHANNEL_COUNT == (int) M1W_CHANNEL_COUNT &&
				   M1_MAX_STOPS == M1W_MAX_STOPS,
			   "wire and text must agree");

void
m1_event_progress(const m1_engine_events *events, m1_request *r)
{
	m1w_progress p = {
		.phase = r->fed < r->prompt_tokens ? M1W_PHASE_PREFILL : M1W_PHASE_DECODE,
		.prompt_tokens = r->prompt_tokens,
		.prefilled = r->fed < r->prompt_tokens ? r->fed : r->prompt_tokens,
		.generated = r->completion_tokens,
	};

	r->reported = r->completion_tokens;
	events->progress(events->context, r->id, &p);
}

void
m1_event_deltas(const m1_engine_events *events, m1_request *r)
{
	/* as they are written, when one step ends a channel and begins the next */
	static const m1_channel order[M1_CHANNEL_COUNT] = {M1_REASONING, M1_CONTENT, M1_TOOL_CALLS};

	if (!r->stream)
		return;
	for (int i = 0; i < M1_CHANNEL_COUNT; i++)
	{
		m1_slice text = m1_reply_text(r->reply, order[i]);
		size_t *sent = &r->sent[order[i]];

		if (text.len > *sent)
		{
			m1w_delta delta = {.channel = (uint8_t) order[i], .text = {text.data + *sent, text.len - *sent}};

			events->delta(events->context, r->id, &delta);
			*sent = text.len;
		}
	}
}

void
m1_event_vector(const m1_engine_events *events, const m1_request *r, const float *logits, int vocab)
{
	m1w_vector vector = {.values = {(const char *) logits, (size_t) vocab * sizeof *logits}};

	events->vector(events->context, r->id, &vector);
}

void
m1_event_failed(const m1_engine_events *events, const m1_request *r, const m1_error *error)
{
	events->failed(events->context, r->id, error);
}

void
m1_event_done(const m1_engine_events *events, m1_request *r)
{
	const double now = m1_now_ms();
	m1_buf calls = {0};
	m1_buf logprobs = {0};
	m1_error error;
	m1w_done done = {
		.finish = (uint8_t) r->finish,
		.prompt_tokens = r->prompt_tokens,
		.cached_tokens = r->cached_tokens,
		.reasoning_tokens = r->reasoning_tokens,
		.completion_tokens = r->completion_tokens,
		.seed = r->sampling.seed,
		.queue_ms = r->started_ms - r->submitted_ms,
		.prefill_ms = r->prefilled_ms - r->started_ms,
		.decode_ms = now - r->prefilled_ms,
	};

	if (r->kind == M1_REQUEST_IDS)
		done.ids = (m1w_id_slice){r->tokens.data + r->prompt_tokens, r->tokens.len - (size_t) r->prompt_tokens};
	else
	{
		if (!m1_reply_finish(r->reply) || !m1_reply_tool_calls(r->reply, &calls) ||
			(r->logprobs != NULL && !m1_token_logprobs_write(r->logprobs, &logprobs)))
		{
			m1_fail(&error, M1_E_NO_MEMORY, "out of memory for the reply");
			m1_event_failed(events, r, &error);
			m1_buf_free(&calls);
			m1_buf_free(&logprobs);
			return;
		}
		m1_event_deltas(events, r);
		if (r->answer_start > 0)
			done.choice_logprobs = m1_choice_scores_logprobs(r->scores);
		done.tool_calls = (m1_slice){calls.data, calls.len};
		done.logprobs = (m1_slice){logprobs.data, logprobs.len};
		if (!r->stream)
		{
			done.content = m1_reply_text(r->reply, M1_CONTENT);
			done.reasoning = m1_reply_text(r->reply, M1_REASONING);
		}
	}
	if (r->kept != NULL)
		m1_kept_reply_put(r->kept, &r->tokens, &done);
	events->done(events->context, r->id, &done);
	m1_buf_free(&calls);
	m1_buf_free(&logprobs);
}
