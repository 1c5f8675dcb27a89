/*
 * wire.c - frames and every message in them, of both sides: what is decoded lies within the payload, and encoded again
 * gives its bytes.
 */
#include "lib/fuzz.h"

#include <string.h>

#include "wire/message.h"

static void
check_slice(m1_slice payload, m1_slice s, const char *what)
{
	fuzz_check(s.len == 0 || (s.data >= payload.data && s.len <= payload.len &&
							  (size_t) (s.data - payload.data) <= payload.len - s.len),
			   "%s lies outside the payload", what);
}

static void
check_same(m1_slice payload, const m1_buf *again, const char *what)
{
	fuzz_check(again->len == payload.len && (payload.len == 0 || memcmp(again->data, payload.data, payload.len) == 0),
			   "%s: other bytes, %zu instead of %zu", what, again->len, payload.len);
}

/* Decodes as one kind of message; if it is one, encodes it again. */
#define CHECK(name, payload)                                                                    \
	do                                                                                          \
	{                                                                                           \
		m1w_##name m;                                                                           \
		m1_buf again = {0};                                                                     \
		m1_error err;                                                                           \
		const m1_status status = m1w_decode_##name((payload).data, (payload).len, &m, &err);    \
                                                                                                \
		if (status != M1_OK)                                                                    \
		{                                                                                       \
			fuzz_check_error(status, &err);                                                     \
			break;                                                                              \
		}                                                                                       \
		fuzz_check(m1w_encode_##name(&again, &m), #name " that was decoded cannot be encoded"); \
		check_same(payload, &again, #name);                                                     \
		look_at_##name(payload, &m);                                                            \
		m1_buf_free(&again);                                                                    \
	} while (0)

static void
look_at_ids(m1_slice payload, m1w_id_slice ids)
{
	volatile int32_t sum = 0;

	check_slice(payload, (m1_slice){(const char *) ids.data, ids.len * sizeof(int32_t)}, "ids");
	for (size_t i = 0; i < ids.len; i++)
		sum = sum ^ m1w_id_at(ids, i);
}

static void
look_at_array(m1_slice payload, m1_slice s, size_t unit, const char *what)
{
	check_slice(payload, s, what);
	fuzz_check(s.len % unit == 0, "%zu bytes of %s", s.len, what);
}

static void
look_at_name(m1_slice payload, m1_slice name)
{
	check_slice(payload, name, "name");
	fuzz_check(name.len <= M1W_MAX_NAME, "a name of %zu bytes", name.len);
}

static void
look_at_generate(m1_slice payload, const m1w_generate *m)
{
	fuzz_check(m->n_stops <= M1W_MAX_STOPS && m->constraint < M1W_CONSTRAINT_COUNT && m->stream < 2, "a value");
	check_slice(payload, m->prompt, "prompt");
	check_slice(payload, m->system, "system");
	check_slice(payload, m->messages, "messages");
	check_slice(payload, m->tools, "tools");
	check_slice(payload, m->tool_choice, "tool_choice");
	check_slice(payload, m->constraint_text, "constraint_text");
	look_at_ids(payload, m->ids);
	for (uint32_t i = 0; i < m->n_stops; i++)
		check_slice(payload, m->stops[i], "stop");
}

static void
look_at_words(m1_slice payload, const m1w_words *m)
{
	check_slice(payload, m->text, "words");
	fuzz_check(m->tags < 2, "tags %u", m->tags);
	fuzz_check(m->wanted < M1W_WANTED_COUNT, "wanted %u", m->wanted);
}

static void
look_at_counted(m1_slice payload, const m1w_counted *m)
{
	fuzz_check(payload.len == sizeof m->tokens, "%zu bytes", payload.len);
}

static void
look_at_text(m1_slice payload, const m1w_text *m)
{
	check_slice(payload, m->text, "text");
}

static void
look_at_tokens(m1_slice payload, const m1w_tokens *m)
{
	look_at_ids(payload, m->ids);
	look_at_ids(payload, m->ends);
}

static void
look_at_vector(m1_slice payload, const m1w_vector *m)
{
	check_slice(payload, m->values, "values");
	fuzz_check(m->values.len % sizeof(float) == 0, "%zu bytes of floats", m->values.len);
}

static void
look_at_ready(m1_slice payload, const m1w_ready *m)
{
	check_slice(payload, m->name, "name");
	check_slice(payload, m->architecture, "architecture");
	check_slice(payload, m->device, "device");
}

static void
look_at_cache(m1_slice payload, const m1w_cache *m)
{
	fuzz_check(payload.len == sizeof m->snapshots + sizeof m->bytes, "%zu bytes", payload.len);
}

static void
look_at_progress(m1_slice payload, const m1w_progress *m)
{
	(void) payload;
	fuzz_check(m->phase < M1W_PHASE_COUNT, "phase %u", m->phase);
}

static void
look_at_delta(m1_slice payload, const m1w_delta *m)
{
	fuzz_check(m->channel < M1W_CHANNEL_COUNT, "channel %u", m->channel);
	check_slice(payload, m->text, "text");
}

static void
look_at_done(m1_slice payload, const m1w_done *m)
{
	volatile double sum = 0;

	fuzz_check(m->finish < M1W_FINISH_COUNT, "finish %u", m->finish);
	check_slice(payload, m->content, "content");
	check_slice(payload, m->reasoning, "reasoning");
	check_slice(payload, m->tool_calls, "tool_calls");
	check_slice(payload, m->choice_logprobs, "choice_logprobs");
	check_slice(payload, m->logprobs, "logprobs");
	look_at_ids(payload, m->ids);
	look_at_ids(payload, m->prompt_ids);
	look_at_array(payload, m->sampled_logprobs, sizeof(float), "sampled_logprobs");
	look_at_array(payload, m->experts, sizeof(uint16_t), "experts");
	look_at_ids(payload, m->masked);
	look_at_array(payload, m->masks, sizeof(uint64_t), "masks");
	look_at_ids(payload, m->mask_of);
	for (size_t i = 0; i < m->choice_logprobs.len / sizeof(double); i++)
		sum = sum + m1w_double_at(m->choice_logprobs, i);
}

static void
look_at_failure(m1_slice payload, const m1w_failure *m)
{
	m1_error err;

	check_slice(payload, m->message, "message");
	m1w_failure_to_error(m, &err);
	fuzz_check(err.code != M1_OK && err.code < M1_STATUS_COUNT, "code %d", (int) err.code);
	fuzz_check(memchr(err.message, '\0', sizeof err.message) && memchr(err.detail, '\0', sizeof err.detail) &&
				   memchr(err.hint, '\0', sizeof err.hint),
			   "an error without an end");
}

static void
look_at_bytes(m1_slice payload, const m1w_bytes *m)
{
	look_at_name(payload, m->name);
	fuzz_check(m->part < M1W_PART_COUNT, "part %u", m->part);
	check_slice(payload, m->bytes, "bytes");
}

static void
look_at_training(m1_slice payload, const m1w_training *m)
{
	look_at_name(payload, m->name);
	look_at_name(payload, m->from);
	check_slice(payload, m->targets, "targets");
}

static void
look_at_lesson(m1_slice payload, const m1w_lesson *m)
{
	look_at_name(payload, m->training);
	fuzz_check(m->loss < M1W_LOSS_COUNT && m->update < 2 && m->want_logprobs < 2, "a value");
	look_at_ids(payload, m->lengths);
	look_at_ids(payload, m->prompts);
	look_at_ids(payload, m->shares);
	look_at_ids(payload, m->mask_of);
	look_at_ids(payload, m->ids);
	look_at_array(payload, m->advantages, sizeof(float), "advantages");
	look_at_array(payload, m->weights, sizeof(float), "weights");
	look_at_array(payload, m->old_logprobs, sizeof(float), "old_logprobs");
	look_at_array(payload, m->ref_logprobs, sizeof(float), "ref_logprobs");
	look_at_array(payload, m->experts, sizeof(uint16_t), "experts");
	look_at_ids(payload, m->masked);
	look_at_array(payload, m->masks, sizeof(uint64_t), "masks");
}

static void
look_at_learned(m1_slice payload, const m1w_learned *m)
{
	fuzz_check(m->dropped < 2, "dropped %u", m->dropped);
	check_slice(payload, m->digest, "digest");
	look_at_array(payload, m->logprobs, sizeof(float), "logprobs");
}

static void
look_at_serve(m1_slice payload, const m1w_serve *m)
{
	look_at_name(payload, m->name);
	look_at_name(payload, m->from);
}

static void
look_at_forget(m1_slice payload, const m1w_forget *m)
{
	look_at_name(payload, m->name);
	fuzz_check(m->kind < M1W_KEPT_COUNT, "kind %u", m->kind);
}

static void
check_payload(m1_slice payload)
{
	CHECK(generate, payload);
	CHECK(words, payload);
	CHECK(counted, payload);
	CHECK(text, payload);
	CHECK(tokens, payload);
	CHECK(vector, payload);
	CHECK(ready, payload);
	CHECK(cache, payload);
	CHECK(progress, payload);
	CHECK(delta, payload);
	CHECK(done, payload);
	CHECK(failure, payload);
	CHECK(bytes, payload);
	CHECK(training, payload);
	CHECK(lesson, payload);
	CHECK(learned, payload);
	CHECK(serve, payload);
	CHECK(forget, payload);
}

/* A stream as it arrives: whole frames are taken from its beginning. */
static void
check_stream(m1_slice stream)
{
	for (;;)
	{
		m1w_header header;
		bool complete;
		m1_error err;
		const m1_status status = m1w_frame_peek(stream.data, stream.len, &header, &complete, &err);
		m1_buf again = {0};

		if (status != M1_OK)
			fuzz_check_error(status, &err);
		if (status != M1_OK || !complete)
			return;
		fuzz_check(header.length <= stream.len - sizeof header, "a frame that is complete is not there");
		fuzz_check(m1w_frame_append(&again, (m1w_type) header.type, header.request_id, stream.data + sizeof header,
									header.length, header.more),
				   "out of memory");
		check_same((m1_slice){stream.data, sizeof header + header.length}, &again, "frame");
		m1_buf_free(&again);
		check_payload((m1_slice){stream.data + sizeof header, header.length});
		stream.data += sizeof header + header.length;
		stream.len -= sizeof header + header.length;
	}
}

void
fuzz_one(fuzz_input *in)
{
	const m1_slice bytes = fuzz_rest(in);

	check_payload(bytes);
	check_stream(bytes);
}
