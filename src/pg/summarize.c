/*
 * summarize.c
 *	  summarize(): one pass when the document fits the context; otherwise each
 *	  part is summarized and the summaries are put together and summarized again,
 *	  until they fit. Nothing is ever cut off: a part whose summary did not come
 *	  to its end is split and done again.
 */
#include "m1pg.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(m1pg_summarize);

#define FUNCTION_NAME "summarize"
#define DEFAULT_INSTRUCTION "Summarize the following text."
/* Tokens of the chat markup around system prompt and user text, with some to spare. */
#define MARKUP_TOKENS 48
/* A part this small whose summary still does not fit means that the context is too small. */
#define SMALLEST_PART_TOKENS 16

typedef struct Task
{
	m1w_generate request;		/* all but the prompt */
	m1_slice	instruction;	/* UTF-8 */
	int			context;		/* tokens of prompt and reply together */
	int			overhead;		/* prompt tokens beside the document */
	int			reply;			/* tokens that a summary may need */
	int			wish;			/* max_tokens of the last pass, as the caller gave it; 0 = none */
} Task;

static void
too_small(const Task *task)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("minimax_m1: the context is too small to summarize this document"),
			 errdetail("The context holds %d tokens, of which system prompt and instruction take about %d.",
					   task->context, task->overhead),
			 errhint("Raise minimax_m1.max_context, or shorten the instruction.")));
}

static int
count(m1_slice s)
{
	int32	   *ids;
	int32	   *ends;
	int			n;

	if (s.len == 0)
		return 0;
	m1pg_tokenize(s, FUNCTION_NAME, &ids, &ends, &n);
	pfree(ids);
	pfree(ends);
	return n;
}

/* Tokens of document that one pass can take. */
static int
room(const Task *task)
{
	return task->context - task->overhead - task->reply;
}

/* The model's summary of one part, and how it ended. */
static m1_slice
summarize_part(Task *task, m1_slice part, m1w_finish *finish)
{
	StringInfoData prompt;
	M1Result	result;

	initStringInfo(&prompt);
	appendBinaryStringInfo(&prompt, task->instruction.data, task->instruction.len);
	appendStringInfoString(&prompt, "\n\n");
	appendBinaryStringInfo(&prompt, part.data, part.len);
	task->request.prompt = (m1_slice) {prompt.data, prompt.len};
	task->request.template_len = prompt.len - part.len;
	m1pg_run(&task->request, FUNCTION_NAME, &result);
	pfree(prompt.data);
	*finish = result.done.finish;
	return result.done.content;
}

static bool
complete_summary(m1w_finish finish)
{
	return finish == M1W_FINISH_STOP || finish == M1W_FINISH_THINKING_BUDGET;
}

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

/* Appends the summary of a part; a part whose summary has no end is done again in halves. */
static void
append_summary(Task *task, m1_slice part, const int32 *ends, int first, int last, Size base, StringInfo out)
{
	m1w_finish	finish;
	m1_slice	summary = summarize_part(task, part, &finish);

	CHECK_FOR_INTERRUPTS();
	if (complete_summary(finish))
	{
		if (out->len > 0)
			appendStringInfoString(out, "\n\n");
		appendBinaryStringInfo(out, summary.data, summary.len);
		return;
	}
	if (last - first < 2 * SMALLEST_PART_TOKENS)
		too_small(task);
	{
		int			middle = first + (last - first) / 2;
		m1_slice	whole = {part.data - base, base + part.len};
		Size		cut = choose_cut(whole, base, ends, first, middle);
		int			next = first;

		while (next < last && (Size) ends[next] <= cut)
			next++;
		append_summary(task, (m1_slice) {part.data, cut - base}, ends, first, next, base, out);
		append_summary(task, (m1_slice) {whole.data + cut, base + part.len - cut}, ends, next, last, cut, out);
	}
}

/* One round over all parts: the joined summaries. */
static m1_slice
summarize_parts(Task *task, m1_slice document)
{
	StringInfoData joined;
	int32	   *ids;
	int32	   *ends;
	int			n;
	int			first = 0;
	Size		from = 0;

	initStringInfo(&joined);
	m1pg_tokenize(document, FUNCTION_NAME, &ids, &ends, &n);
	while (from < document.len)
	{
		int			last = Min(first + room(task), n);
		Size		cut = last == n ? document.len : choose_cut(document, from, ends, first, last);
		int			next = first;

		while (next < n && (Size) ends[next] <= cut)
			next++;
		append_summary(task, (m1_slice) {document.data + from, cut - from}, ends, first, next, from, &joined);
		from = cut;
		first = next;
	}
	pfree(ids);
	pfree(ends);
	return (m1_slice) {joined.data, joined.len};
}

/* A last summary that ends at the caller's max_tokens is what was asked for. */
static m1_slice
summarize_whole(Task *task, m1_slice document, int tokens)
{
	while (tokens > room(task))
	{
		m1_slice	shorter = summarize_parts(task, document);
		int			now = count(shorter);

		if (now >= tokens)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("minimax_m1: the summaries of the parts are no shorter than the document"),
					 errdetail("%d tokens became %d; one pass takes %d.", tokens, now, room(task)),
					 errhint("Raise minimax_m1.max_context, or ask for shorter summaries.")));
		document = shorter;
		tokens = now;
	}
	{
		m1w_finish	finish;
		int			map_tokens = task->request.max_tokens;
		m1_slice	summary;

		if (task->wish > 0)
			task->request.max_tokens = task->wish;
		summary = summarize_part(task, document, &finish);
		task->request.max_tokens = map_tokens;
		if (!complete_summary(finish) && task->wish == 0)
		{
			if (tokens < 2 * SMALLEST_PART_TOKENS)
				too_small(task);
			/* it fitted, but left too little for the reply: in parts there is more room */
			task->reply = Max(task->reply, task->context - task->overhead - tokens / 2);
			return summarize_whole(task, document, tokens);
		}
		return summary;
	}
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

Datum
m1pg_summarize(PG_FUNCTION_ARGS)
{
	Task		task;
	text	   *document;
	m1_slice	words;
	int			tokens;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	m1pg_require_shared();
	m1pg_default_request(&task.request);
	document = PG_GETARG_TEXT_PP(0);
	words = m1pg_to_utf8(VARDATA_ANY(document), VARSIZE_ANY_EXHDR(document));
	if (words.len == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("minimax_m1: the document is empty")));
	task.instruction = m1_slice_of(DEFAULT_INSTRUCTION);
	if (!PG_ARGISNULL(1))
	{
		text	   *instruction = PG_GETARG_TEXT_PP(1);

		task.instruction = m1pg_to_utf8(VARDATA_ANY(instruction), VARSIZE_ANY_EXHDR(instruction));
	}
	if (!PG_ARGISNULL(2) && PG_GETARG_INT32(2) < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("minimax_m1: max_tokens is out of range"),
						errdetail("It is %d; it must be at least 1.", PG_GETARG_INT32(2))));
	tokens = count(words);		/* waits for the model, whose context is known then */
	task.context = context_size();
	task.overhead = MARKUP_TOKENS + count(task.request.system) + count(task.instruction);
	/* reasoning is part of the reply: a third of the context is left for both */
	task.reply = Max(task.context / 3, 1);
	task.wish = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	if (task.wish > 0)
		task.reply = Min(task.reply, task.wish);
	if (room(&task) < SMALLEST_PART_TOKENS)
		too_small(&task);
	PG_RETURN_TEXT_P(m1pg_text_from_utf8(summarize_whole(&task, words, tokens)));
}
