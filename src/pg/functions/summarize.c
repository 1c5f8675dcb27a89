/*
 * summarize.c
 *	  summarize(), and the rounds of it that the aggregates use: one pass when the
 *	  document fits the context; otherwise each part is summarized and the
 *	  summaries are put together and summarized again, until they fit. Nothing is
 *	  ever cut off: a part whose summary did not come to its end is split and done
 *	  again.
 */
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/functions/summary.h"
#include "pg/functions/tokens.h"
#include "pg/report.h"
#include "pg/shared.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"

PG_FUNCTION_INFO_V1(m1pg_summarize);

#define DEFAULT_INSTRUCTION "Summarize the following text."
/*
 * Tokens of the chat markup around system prompt and user text, with some to
 * spare: about 20 are usual. Should it take more, the reply has so much less;
 * quotas, which promise, reckon with the most (quota.c).
 */
#define LIKELY_MARKUP_TOKENS 48
/* A part this small whose summary still does not fit means that the context is too small. */
#define SMALLEST_PART_TOKENS 16

static bool
too_small(M1Summary *task)
{
	m1_fail(&task->error, M1_E_CONTEXT_OVERFLOW, "the context is too small to summarize this document");
	m1_error_detail(&task->error, "The context holds %d tokens, of which system prompt and instruction take about %d.",
					task->context, task->overhead);
	m1_error_hint(&task->error, "Raise minimax_m1.max_context, or shorten the instruction.");
	return false;
}

bool
m1pg_summary_count(M1Summary *task, m1_slice text, int *tokens)
{
	*tokens = 0;
	return text.len == 0 || m1pg_try_count_tokens(text, task->function, tokens, &task->error);
}

int
m1pg_summary_room(const M1Summary *task)
{
	return task->context - task->overhead - task->reply;
}

/* ---- one part ---- */

/* The model's summary of one part, and whether it came to its end. */
static bool
summarize_part(M1Summary *task, m1_slice part, m1_slice *summary, bool *complete)
{
	m1w_generate request = task->request;
	M1Result	result;

	m1pg_task_prompt(&request, task->instruction, part);
	if (!m1pg_try_run(&request, task->function, &result, &task->error))
		return false;
	pfree(unconstify(char *, request.prompt.data));
	*summary = result.done.content;
	*complete = result.done.finish == M1W_FINISH_STOP || result.done.finish == M1W_FINISH_THINKING_BUDGET;
	return true;
}

/* ---- cutting ---- */

/* How good a place to cut is just before s[at]: paragraphs before lines before sentences before words. */
static int
cut_quality(m1_slice s, Size at)
{
	if (at >= s.len || at == 0)
		return 5;
	if (((unsigned char) s.data[at] & 0xC0) == 0x80)
		return 0;				/* inside a character */
	if (at >= 2 && s.data[at - 1] == '\n' && s.data[at - 2] == '\n')
		return 5;
	if (s.data[at - 1] == '\n')
		return 4;
	if (at >= 2 && s.data[at - 1] == ' ' && strchr(".!?", s.data[at - 2]) != NULL)
		return 3;
	if (s.data[at - 1] == ' ')
		return 2;
	return 1;
}

/*
 * Where to end a part that begins at byte `from` and may have tokens [first, last): the best place in its
 * second half, the latest among equals.
 */
static Size
choose_cut(m1_slice s, Size from, const int32 *ends, int first, int last)
{
	Size		limit = ends[last - 1];
	Size		earliest = ends[first + (last - first) / 2];
	Size		best = limit;
	int			best_quality = 0;

	for (Size at = limit; at > earliest && at > from; at--)
	{
		int			quality = cut_quality(s, at);

		if (quality > best_quality)
		{
			best = at;
			best_quality = quality;
		}
		if (best_quality == 5)
			break;
	}
	return best;
}

/* ---- a round ---- */

/* Where the summaries of a round go. */
typedef struct Joined
{
	StringInfoData text;
	int			parts;
} Joined;

/* The first of the tokens [next, last) that ends behind a cut. */
static int
token_behind(const int32 *ends, int next, int last, Size cut)
{
	while (next < last && (Size) ends[next] <= cut)
		next++;
	return next;
}

/* Appends the summary of a part; a part whose summary has no end is done again in halves. */
static bool
append_summary(M1Summary *task, m1_slice part, const int32 *ends, int first, int last, Size base, Joined *out)
{
	m1_slice	summary;
	bool		complete;

	CHECK_FOR_INTERRUPTS();
	if (!summarize_part(task, part, &summary, &complete))
		return false;
	if (complete)
	{
		if (out->text.len > 0)
			appendStringInfoString(&out->text, "\n\n");
		appendBinaryStringInfo(&out->text, summary.data, summary.len);
		out->parts++;
		return true;
	}
	if (last - first < 2 * SMALLEST_PART_TOKENS)
		return too_small(task);
	{
		int			middle = first + (last - first) / 2;
		m1_slice	whole = {part.data - base, base + part.len};
		Size		cut = choose_cut(whole, base, ends, first, middle);
		int			next = token_behind(ends, first, last, cut);

		return append_summary(task, (m1_slice) {part.data, cut - base}, ends, first, next, base, out) &&
			append_summary(task, (m1_slice) {whole.data + cut, base + part.len - cut}, ends, next, last, cut, out);
	}
}

static bool
append_parts(M1Summary *task, m1_slice document, const int32 *ends, int n, Joined *out)
{
	int			first = 0;
	Size		from = 0;

	while (from < document.len)
	{
		int			last = Min(first + m1pg_summary_room(task), n);
		Size		cut = last == n ? document.len : choose_cut(document, from, ends, first, last);
		int			next = token_behind(ends, first, n, cut);

		if (!append_summary(task, (m1_slice) {document.data + from, cut - from}, ends, first, next, from, out))
			return false;
		from = cut;
		first = next;
	}
	return true;
}

bool
m1pg_summary_check_shorter(M1Summary *task, int before, int now)
{
	if (now < before)
		return true;
	m1_fail(&task->error, M1_E_CONTEXT_OVERFLOW, "the summaries of the parts are no shorter than the document");
	m1_error_detail(&task->error, "%d tokens became %d; one pass takes %d.", before, now, m1pg_summary_room(task));
	m1_error_hint(&task->error, "Raise minimax_m1.max_context, or ask for shorter summaries.");
	return false;
}

bool
m1pg_summary_round(M1Summary *task, m1_slice document, m1_slice *joined, int *parts)
{
	Joined		out = {.parts = 0};
	int32	   *ends;
	int			n;

	initStringInfo(&out.text);
	if (!m1pg_try_token_ends(document, task->function, &ends, &n, &task->error) ||
		!append_parts(task, document, ends, n, &out))
		return false;
	pfree(ends);
	*joined = (m1_slice) {out.text.data, out.text.len};
	*parts = out.parts;
	return true;
}

/* ---- all of it ---- */

/* A last summary that ends at the caller's max_tokens is what was asked for. */
static bool
summarize_last(M1Summary *task, m1_slice document, m1_slice *summary, bool *complete)
{
	int			map_tokens = task->request.max_tokens;
	bool		done;

	if (task->wish > 0)
		task->request.max_tokens = task->wish;
	done = summarize_part(task, document, summary, complete);
	task->request.max_tokens = map_tokens;
	if (task->wish > 0)
		*complete = true;
	return done;
}

bool
m1pg_summary_whole(M1Summary *task, m1_slice document, int tokens, m1_slice *summary)
{
	bool		complete;
	int			parts;
	int			now;

	while (tokens > m1pg_summary_room(task))
	{
		if (!m1pg_summary_round(task, document, &document, &parts) ||
			!m1pg_summary_count(task, document, &now) ||
			!m1pg_summary_check_shorter(task, tokens, now))
			return false;
		tokens = now;
	}
	if (!summarize_last(task, document, summary, &complete))
		return false;
	if (complete)
		return true;
	if (tokens < 2 * SMALLEST_PART_TOKENS)
		return too_small(task);
	/* it fitted, but left too little for the reply: in parts there is more room */
	task->reply = Max(task->reply, task->context - task->overhead - tokens / 2);
	return m1pg_summary_whole(task, document, tokens, summary);
}

static int
context_size(void)
{
	int			context;

	LWLockAcquire(m1pg_shared->lock, LW_SHARED);
	context = m1pg_shared->model.context;
	LWLockRelease(m1pg_shared->lock);
	return context;
}

bool
m1pg_summary_init(M1Summary *task, const char *function, const m1_slice *instruction, int max_tokens)
{
	int			system;
	int			words;

	m1pg_require_shared();
	memset(task, 0, sizeof *task);
	task->function = function;
	task->instruction = instruction != NULL ? *instruction : m1_slice_of(DEFAULT_INSTRUCTION);
	m1pg_default_request(&task->request);
	/* with its line breaks never empty, so this waits for the model, whose context is known then */
	m1pg_task_prompt(&task->request, task->instruction, m1_slice_of(""));
	if (!m1pg_summary_count(task, task->request.prompt, &words) ||
		!m1pg_summary_count(task, task->request.system, &system))
		return false;
	task->context = context_size();
	task->overhead = LIKELY_MARKUP_TOKENS + system + words;
	/* reasoning is part of the reply: a third of the context is left for both */
	task->reply = Max(task->context / 3, 1);
	task->wish = max_tokens;
	if (task->wish > 0)
		task->reply = Min(task->reply, task->wish);
	return m1pg_summary_room(task) >= SMALLEST_PART_TOKENS || too_small(task);
}

/* ---- the function ---- */

static bool
summarize(M1Summary *task, m1_slice document, const m1_slice *instruction, int max_tokens, m1_slice *summary)
{
	int			tokens;

	if (document.len == 0)
	{
		m1_fail(&task->error, M1_E_INVALID_ARGUMENT, "the document is empty");
		return false;
	}
	return m1pg_summary_init(task, "summarize", instruction, max_tokens) &&
		m1pg_summary_count(task, document, &tokens) &&
		m1pg_summary_whole(task, document, tokens, summary);
}

Datum
m1pg_summarize(PG_FUNCTION_ARGS)
{
	M1Summary	task;
	m1_slice	instruction;
	m1_slice	summary;
	int			max_tokens = 0;
	text	   *result = NULL;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (!PG_ARGISNULL(1))
		instruction = m1pg_utf8_of_text(PG_GETARG_TEXT_PP(1));
	if (!PG_ARGISNULL(2))
		max_tokens = m1pg_check_max_tokens(PG_GETARG_INT32(2));
	if (summarize(&task, m1pg_utf8_of_text(PG_GETARG_TEXT_PP(0)), PG_ARGISNULL(1) ? NULL : &instruction, max_tokens,
				  &summary))
		result = m1pg_scalar_text(summary);
	else
		m1pg_report_or_null(&task.error);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}
