/*
 * aggregates.c
 *	  summarize_agg() and reduce_agg(): a tree over any number of rows. Rows are
 *	  put together until they fill a pass of the model; its summary is a row of
 *	  the next level, and so on.
 *
 *	  A level holds what one pass takes, and the number of levels grows with the
 *	  logarithm of the rows, so the memory does not depend on their number or
 *	  order. All of it lives in the memory context of the aggregate.
 */
#include "pg/client/texts.h"
#include "pg/functions/summary.h"
#include "pg/report.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"

PG_FUNCTION_INFO_V1(m1pg_summarize_agg_step);
PG_FUNCTION_INFO_V1(m1pg_reduce_agg_step);
PG_FUNCTION_INFO_V1(m1pg_reduce_agg_final);

/* Each level takes at least two texts of the one below, or one that is at most half as long as before. */
#define MAX_LEVELS 64

typedef struct Level
{
	StringInfoData text;		/* UTF-8, paragraphs between the texts */
	int			items;			/* texts in it */
	bool		summary;		/* there is one, and it is a summary of all that went into it */
	int			tokens;			/* of its first `counted` bytes */
	int			counted;
} Level;

typedef struct Tree
{
	M1Summary	task;
	MemoryContext context;
	bool		default_instruction;
	int			n_levels;
	Level		levels[MAX_LEVELS];
} Tree;

static void add_text(Tree *tree, int number, m1_slice words, bool summary);

/* ---- levels ---- */

static void
check(Tree *tree, bool done)
{
	if (!done)
		m1pg_report(&tree->task.error);
}

static Level *
get_level(Tree *tree, int number)
{
	if (number == MAX_LEVELS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("minimax_m1: the summaries do not get shorter"),
				 errhint("Raise minimax_m1.max_context, or ask for shorter summaries.")));
	while (tree->n_levels <= number)
	{
		MemoryContext old = MemoryContextSwitchTo(tree->context);

		initStringInfo(&tree->levels[tree->n_levels].text);
		tree->n_levels++;
		MemoryContextSwitchTo(old);
	}
	return &tree->levels[number];
}

static m1_slice
text_of(const Level *level)
{
	return (m1_slice) {level->text.data, level->text.len};
}

static void
clear(Level *level)
{
	resetStringInfo(&level->text);
	level->items = level->tokens = level->counted = 0;
	level->summary = false;
}

/* A token has at least one byte, so most rows need no counting. */
static bool
may_overflow(const Level *level, Size more, int room)
{
	return (Size) level->tokens + (level->text.len - level->counted) + more > (Size) room;
}

static void
count_level(Tree *tree, Level *level)
{
	check(tree, m1pg_summary_count(&tree->task, text_of(level), &level->tokens));
	level->counted = level->text.len;
}

/* Gives a text's summary to a level, or the text itself where a summary is no shorter. */
static void
reduce_text(Tree *tree, m1_slice words, int tokens, int to)
{
	m1_slice	joined;
	int			parts;
	int			now;

	check(tree, m1pg_summary_round(&tree->task, words, &joined, &parts));
	check(tree, m1pg_summary_count(&tree->task, joined, &now));
	if (now >= tokens && tokens <= m1pg_summary_room(&tree->task))
		add_text(tree, to, words, false);
	else
	{
		check(tree, m1pg_summary_check_shorter(&tree->task, tokens, now));
		add_text(tree, to, joined, parts == 1);
	}
}

/* Empties a level; its text is the caller's. */
static m1_slice
take_text(Level *level)
{
	m1_slice	words = {pnstrdup(level->text.data, level->text.len), level->text.len};

	clear(level);
	return words;
}

static void
flush(Tree *tree, int number)
{
	Level	   *level = get_level(tree, number);
	int			tokens;

	count_level(tree, level);
	tokens = level->tokens;
	reduce_text(tree, take_text(level), tokens, number + 1);
}

/* Puts a text behind the others of a level, which make room when it does not fit beside them. */
static void
add_text(Tree *tree, int number, m1_slice words, bool summary)
{
	Level	   *level = get_level(tree, number);
	int			room = m1pg_summary_room(&tree->task);

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (may_overflow(level, words.len + 2, room))
	{
		int			tokens;

		check(tree, m1pg_summary_count(&tree->task, words, &tokens));
		if (level->items > 0)
			count_level(tree, level);
		if (level->items > 0 && level->tokens + tokens + 2 > room)
			flush(tree, number);
		if (tokens > room)
		{
			reduce_text(tree, words, tokens, number + 1);
			return;
		}
	}
	if (level->items > 0)
		appendStringInfoString(&level->text, "\n\n");
	appendBinaryStringInfo(&level->text, words.data, words.len);
	level->summary = summary && level->items == 0;
	level->items++;
}

/* ---- steps ---- */

static m1_slice
keep_slice(m1_slice s)
{
	return (m1_slice) {pnstrdup(s.data, s.len), s.len};
}

static Tree *
new_tree(MemoryContext context, const char *function, const m1_slice *instruction)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	Tree	   *tree = palloc0(sizeof *tree);
	m1_slice	kept = {NULL, 0};

	tree->context = context;
	tree->default_instruction = instruction == NULL;
	if (instruction != NULL)
		kept = keep_slice(*instruction);
	check(tree, m1pg_summary_init(&tree->task, function, instruction != NULL ? &kept : NULL, 0));
	/* the setting may change between two rows, and its text with it */
	tree->task.request.system = keep_slice(tree->task.request.system);
	MemoryContextSwitchTo(old);
	return tree;
}

static bool
same_text(m1_slice a, m1_slice b)
{
	return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

static void
check_same_instruction(const Tree *tree, const m1_slice *instruction)
{
	if (tree->default_instruction ? instruction == NULL :
		instruction != NULL && same_text(*instruction, tree->task.instruction))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("minimax_m1: the instruction of an aggregate is not the same for all rows"),
			 errhint("Group by the instruction, or give a constant.")));
}

/* A row: NULL and the empty text add nothing. */
static Datum
step(FunctionCallInfo fcinfo, const char *function, const m1_slice *instruction)
{
	Tree	   *tree = PG_ARGISNULL(0) ? NULL : (Tree *) PG_GETARG_POINTER(0);
	MemoryContext context;
	m1_slice	words;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "minimax_m1: an aggregate's function was called outside of it");
	if (!PG_ARGISNULL(1) && (words = m1pg_utf8_of_text(PG_GETARG_TEXT_PP(1))).len > 0)
	{
		if (tree == NULL)
			tree = new_tree(context, function, instruction);
		else
			check_same_instruction(tree, instruction);
		add_text(tree, 0, words, false);
	}
	if (tree == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(tree);
}

Datum
m1pg_summarize_agg_step(PG_FUNCTION_ARGS)
{
	return step(fcinfo, "summarize_agg", NULL);
}

Datum
m1pg_reduce_agg_step(PG_FUNCTION_ARGS)
{
	m1_slice	instruction;

	if (PG_ARGISNULL(2))
		return step(fcinfo, "reduce_agg", NULL);
	instruction = m1pg_utf8_of_text(PG_GETARG_TEXT_PP(2));
	return step(fcinfo, "reduce_agg", &instruction);
}

/* What is left on each level goes up, until all is on one. */
Datum
m1pg_reduce_agg_final(PG_FUNCTION_ARGS)
{
	Tree	   *tree = PG_ARGISNULL(0) ? NULL : (Tree *) PG_GETARG_POINTER(0);
	Level	   *top;
	m1_slice	summary;
	int			number;

	if (tree == NULL)
		PG_RETURN_NULL();
	for (number = 0; number < tree->n_levels - 1; number++)
		if (tree->levels[number].items > 0)
			add_text(tree, number + 1, take_text(&tree->levels[number]), false);
	top = &tree->levels[number];
	summary = text_of(top);
	if (!top->summary)
	{
		count_level(tree, top);
		check(tree, m1pg_summary_whole(&tree->task, text_of(top), top->tokens, &summary));
	}
	PG_RETURN_TEXT_P(m1pg_text_from_utf8(summary));
}
