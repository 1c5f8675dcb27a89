/* token_logprobs.c - see token_logprobs.h. */
#include "engine/token_logprobs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jsontext.h"
#include "text/markup.h"
#include "wire/message.h"

#define LEAST (-9999.0f) /* what OpenAI's interface has for log 0 */

/* What a token is part of; the tags belong to what they enclose. */
typedef enum part
{
	UNDECIDED, /* the reply has not shown yet whether it reasons */
	REASONING,
	CONTENT,
	CALLS,
} part;

static const char *const part_names[] = {"content", "reasoning", "content", "tool_calls"};

typedef struct measured
{
	int32_t id;
	float logprob;
} measured;

struct m1_token_logprobs
{
	const m1_tokenizer *t;
	int top;
	measured last[M1W_MAX_TOP_LOGPROBS + 1]; /* the token that was chosen, and the likeliest ones */
	m1_buf json;							 /* of all tokens but their channels, one after the other */
	m1_ids at_channel, ends;				 /* [n] of each in `json`: where its channel belongs, and where it ends */
	m1_ids ids;								 /* [n] */
	m1_buf parts;							 /* uint8_t [n]: part */
};

m1_token_logprobs *
m1_token_logprobs_create(const m1_tokenizer *t, int top)
{
	m1_token_logprobs *p = calloc(1, sizeof *p);

	if (p != NULL)
	{
		p->t = t;
		p->top = top;
	}
	return p;
}

void
m1_token_logprobs_free(m1_token_logprobs *p)
{
	if (p == NULL)
		return;
	m1_buf_free(&p->json);
	m1_ids_free(&p->at_channel);
	m1_ids_free(&p->ends);
	m1_ids_free(&p->ids);
	m1_buf_free(&p->parts);
	free(p);
}

/* ---- measuring ---- */

static float
log_sum(const float *logits, int vocab)
{
	float most = -INFINITY;
	double sum = 0;

	for (int i = 0; i < vocab; i++)
		most = logits[i] > most ? logits[i] : most;
	for (int i = 0; i < vocab; i++)
		sum += exp((double) (logits[i] - most));
	/* the most likely one alone makes it 1 or more */
	return most + (float) log(sum); /* cppcheck-suppress invalidFunctionArg */
}

/* Puts a token among the likeliest ones, of which there are n; of equal ones the first stays in front. */
static int
insert(measured *best, int n, int top, measured one)
{
	int at = n < top ? n : top;

	while (at > 0 && best[at - 1].logprob < one.logprob)
	{
		if (at < top)
			best[at] = best[at - 1];
		at--;
	}
	if (at < top)
		best[at] = one;
	return n < top ? n + 1 : top;
}

void
m1_token_logprobs_measure(m1_token_logprobs *p, const float *logits, int vocab, int32_t id)
{
	const float all = log_sum(logits, vocab);
	int n = 0;

	p->last[0] = (measured){id, logits[id] - all};
	for (int32_t i = 0; i < vocab && p->top > 0; i++)
		if ((n < p->top || logits[i] - all > p->last[n].logprob) && m1_tokenizer_piece(p->t, i).data != NULL)
			n = insert(p->last + 1, n, p->top, (measured){i, logits[i] - all});
	for (; n < p->top; n++)
		p->last[1 + n] = (measured){-1, LEAST};
}

/* ---- writing ---- */

/*
 * Each token's JSON is written when the token is, in the step that it belongs to: at the end of a reply, that of all
 * would keep others waiting. What it is part of may turn out later: that is put in at the end.
 */

static void
write_token(const m1_token_logprobs *p, measured one, m1_buf *json)
{
	const m1_slice piece = m1_tokenizer_piece(p->t, one.id);
	m1_buf text = {0};
	m1_utf8 utf8 = {0};
	char number[48];

	/* a part of a character is shown as one that cannot be shown; its bytes tell what it is */
	if (!m1_utf8_push(&utf8, piece, &text) || !m1_utf8_finish(&utf8, &text))
		json->failed = true;
	m1_buf_puts(json, "{\"token\": ");
	m1_json_write_string(json, (m1_slice){text.data, text.len});
	m1_buf_puts(json, ", \"bytes\": [");
	for (size_t i = 0; i < piece.len; i++)
	{
		snprintf(number, sizeof number, i == 0 ? "%d" : ", %d", (unsigned char) piece.data[i]);
		m1_buf_puts(json, number);
	}
	snprintf(number, sizeof number, "], \"logprob\": %.6g", (double) (one.logprob > LEAST ? one.logprob : LEAST));
	m1_buf_puts(json, number);
	m1_buf_free(&text);
}

static void
write_top(const m1_token_logprobs *p, const measured *best, m1_buf *json)
{
	m1_buf_puts(json, ", \"top_logprobs\": [");
	for (int i = 0; i < p->top && best[i].id >= 0; i++)
	{
		m1_buf_puts(json, i > 0 ? ", " : "");
		write_token(p, best[i], json);
		m1_buf_puts(json, "}");
	}
	m1_buf_puts(json, "]}");
}

static bool
write_measured(m1_token_logprobs *p)
{
	write_token(p, p->last[0], &p->json);
	m1_buf_puts(&p->json, ", \"channel\": \"");
	m1_ids_push(&p->at_channel, (int32_t) p->json.len);
	m1_buf_puts(&p->json, "\"");
	write_top(p, p->last + 1, &p->json);
	m1_ids_push(&p->ends, (int32_t) p->json.len);
	m1_ids_push(&p->ids, p->last[0].id);
	return !p->json.failed && !p->at_channel.failed && !p->ends.failed && !p->ids.failed;
}

static void
copy_up_to(const m1_token_logprobs *p, size_t *at, int32_t end, m1_buf *json)
{
	m1_buf_append(json, p->json.data + *at, (size_t) end - *at);
	*at = (size_t) end;
}

/* ---- what tokens are part of ---- */

static size_t
count(const m1_token_logprobs *p)
{
	return p->parts.len;
}

static part
part_of(m1_reply_state before, const m1_reply *reply)
{
	const m1_reply_state now = m1_reply_where(reply);

	if (before == M1_REPLY_CALLS || now == M1_REPLY_CALLS)
		return CALLS;
	if (before == M1_REPLY_REASONING || now == M1_REPLY_REASONING)
		return REASONING;
	return now == M1_REPLY_OPENING ? UNDECIDED : CONTENT;
}

/* The tag that opens calls may have been several tokens, which looked like content until it was complete. */
static void
claim_tag(m1_token_logprobs *p)
{
	size_t left = strlen(M1_CALLS_OPEN);

	for (size_t i = count(p); i-- > 0 && left > 0;)
	{
		const size_t len = m1_tokenizer_piece(p->t, p->ids.data[i]).len;

		p->parts.data[i] = CALLS;
		left -= len < left ? len : left;
	}
}

static void
decide(m1_token_logprobs *p, part what)
{
	for (size_t i = count(p); i-- > 0 && p->parts.data[i] == UNDECIDED;)
		p->parts.data[i] = (char) what;
}

bool
m1_token_logprobs_note(m1_token_logprobs *p, m1_reply_state before, const m1_reply *reply)
{
	part what = part_of(before, reply);
	char byte;

	/* what stands behind a tag and belongs to it */
	if (what == CONTENT && m1_reply_in_markup(reply) && count(p) > 0)
		what = (part) p->parts.data[count(p) - 1];
	byte = (char) what;
	if (!write_measured(p) || !m1_buf_append(&p->parts, &byte, 1))
		return false;
	if (what != UNDECIDED)
		decide(p, what);
	if (before != M1_REPLY_CALLS && m1_reply_where(reply) == M1_REPLY_CALLS)
		claim_tag(p);
	return true;
}

bool
m1_token_logprobs_write(const m1_token_logprobs *p, m1_buf *json)
{
	size_t at = 0;

	m1_buf_puts(json, "[");
	for (size_t i = 0; i < count(p); i++)
	{
		m1_buf_puts(json, i > 0 ? ", " : "");
		copy_up_to(p, &at, p->at_channel.data[i], json);
		m1_buf_puts(json, part_names[(int) p->parts.data[i]]);
		copy_up_to(p, &at, p->ends.data[i], json);
	}
	return m1_buf_puts(json, "]") && !json->failed;
}
