/*
 * classify.c
 *	  classify(): one, or several, of a set of labels; the set is an array or an
 *	  enum type.
 */
#include "pg/client/constrained.h"
#include "pg/client/request.h"
#include "pg/functions/type_schema.h"
#include "pg/report.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(m1pg_classify);
PG_FUNCTION_INFO_V1(m1pg_classify_enum);
PG_FUNCTION_INFO_V1(m1pg_classify_task);

/* ---- labels ---- */

/* Of strings; a long list is given up as soon as nobody wants it. */
static int
compare_strings(const void *a, const void *b)
{
	CHECK_FOR_INTERRUPTS();
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The strings of a list in their byte order, for bsearch. */
static char **
sort_strings(const List *list)
{
	char	  **sorted = palloc(Max(list_length(list), 1) * sizeof *sorted);
	int			n = 0;
	ListCell   *cell;

	foreach(cell, list)
		sorted[n++] = lfirst(cell);
	qsort(sorted, n, sizeof *sorted, compare_strings);
	return sorted;
}

static void
check_distinct(const List *labels)
{
	char	  **sorted = sort_strings(labels);

	for (int i = 1; i < list_length(labels); i++)
		if (compare_strings(&sorted[i - 1], &sorted[i]) == 0)
			m1pg_bad_argument("a category is there twice", psprintf("It is \"%s\".", sorted[i]));
	pfree(sorted);
}

static List *
read_categories(ArrayType *array)
{
	List	   *labels = NIL;
	Datum	   *values;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	if (n == 0)
		m1pg_bad_argument("there are no categories", NULL);
	for (int i = 0; i < n; i++)
	{
		char	   *label;

		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			m1pg_bad_argument("a category is NULL", psprintf("It is number %d.", i + 1));
		label = TextDatumGetCString(values[i]);
		if (label[0] == '\0')
			m1pg_bad_argument("a category is empty", psprintf("It is number %d.", i + 1));
		labels = lappend(labels, label);
	}
	check_distinct(labels);
	return labels;
}

static char *
join(const char *before, const List *labels)
{
	StringInfoData s;
	ListCell   *cell;

	initStringInfo(&s);
	appendStringInfoString(&s, before);
	foreach(cell, labels)
	{
		CHECK_FOR_INTERRUPTS();
		appendStringInfo(&s, "%s%s", cell == list_head(labels) ? "" : ", ", (char *) lfirst(cell));
	}
	appendStringInfoChar(&s, '.');
	return s.data;
}

/* ---- requests ---- */

static char *
task_of_one(const List *labels)
{
	return join("Classify the following text as one of: ", labels);
}

/* Whatever the engine was told, what it answers is looked up. */
static bool
check_chosen(const char *label, char *const *sorted, int n, m1_error *error)
{
	if (bsearch(&label, sorted, n, sizeof *sorted, compare_strings) != NULL)
		return true;
	m1_fail(error, M1_E_INTERNAL, "the engine answered what is not among the categories");
	m1_error_detail(error, "It is \"%.100s\".", label);
	return false;
}

static bool
choose_one(const text *input, const List *labels, char **label, m1_error *error)
{
	m1w_generate g;
	StringInfoData choices;

	m1pg_default_request(&g);
	initStringInfo(&choices);
	m1pg_append_json_strings(&choices, labels);
	m1pg_constrain(&g, M1W_CONSTRAINT_CHOICES, choices.data);
	return m1pg_read_task(&g, task_of_one(labels), input, error) &&
		m1pg_run_constrained(&g, "classify", label, error) &&
		check_chosen(*label, sort_strings(labels), list_length(labels), error);
}

/* The answer is a JSON array of labels, the same one perhaps more than once. */
static bool
read_chosen(const char *answer, const List *labels, List **in_order, m1_error *error)
{
	Jsonb	   *array = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(answer)));
	List	   *chosen = NIL;
	char	  **all = sort_strings(labels);
	char	  **sorted;
	JsonbIterator *it = JsonbIteratorInit(&array->root);
	JsonbValue	v;
	JsonbIteratorToken token;
	ListCell   *cell;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (token == WJB_ELEM && v.type == jbvString)
			chosen = lappend(chosen, pnstrdup(v.val.string.val, v.val.string.len));
	foreach(cell, chosen)
		if (!check_chosen(lfirst(cell), all, list_length(labels), error))
			return false;
	sorted = sort_strings(chosen);
	*in_order = NIL;
	foreach(cell, labels)
		if (bsearch(&lfirst(cell), sorted, list_length(chosen), sizeof *sorted, compare_strings) != NULL)
			*in_order = lappend(*in_order, lfirst(cell));
	return true;
}

static bool
choose_several(const text *input, const List *labels, List **chosen, m1_error *error)
{
	const char *task = join("Classify the following text as one or more of, as a JSON array: ", labels);
	m1w_generate g;
	StringInfoData schema;
	char	   *answer;

	m1pg_default_request(&g);
	initStringInfo(&schema);
	appendStringInfoString(&schema, "{\"type\": \"array\", \"items\": {\"enum\": ");
	m1pg_append_json_strings(&schema, labels);
	appendStringInfo(&schema, "}, \"minItems\": 1, \"maxItems\": %d}", list_length(labels));
	m1pg_constrain(&g, M1W_CONSTRAINT_JSON_SCHEMA, schema.data);
	return m1pg_read_task(&g, task, input, error) && m1pg_run_constrained(&g, "classify", &answer, error) &&
		read_chosen(answer, labels, chosen, error);
}

static ArrayType *
array_of_labels(const List *labels)
{
	Datum	   *values = palloc(Max(list_length(labels), 1) * sizeof *values);
	int			n = 0;
	ListCell   *cell;

	foreach(cell, labels)
		values[n++] = CStringGetTextDatum(lfirst(cell));
	return construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/* ---- SQL ---- */

/* classify(input, categories, multi) */
Datum
m1pg_classify(PG_FUNCTION_ARGS)
{
	List	   *labels;
	List	   *chosen = NIL;
	char	   *label;
	m1_error	error;
	bool		done;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	labels = read_categories(PG_GETARG_ARRAYTYPE_P(1));
	if (!PG_ARGISNULL(2) && PG_GETARG_BOOL(2))
		done = choose_several(PG_GETARG_TEXT_PP(0), labels, &chosen, &error);
	else if ((done = choose_one(PG_GETARG_TEXT_PP(0), labels, &label, &error)))
		chosen = list_make1(label);
	if (!done)
	{
		m1pg_report_or_null(&error);
		PG_RETURN_NULL();
	}
	PG_RETURN_ARRAYTYPE_P(array_of_labels(chosen));
}

/* classify(input, NULL::some_enum) */
Datum
m1pg_classify_enum(PG_FUNCTION_ARGS)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 1);
	List	   *labels;
	char	   *label;
	m1_error	error;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (!OidIsValid(type))
		elog(ERROR, "minimax_m1: the enum type of classify is not known");
	labels = m1pg_enum_labels(type);
	if (labels == NIL)
		m1pg_bad_argument("the enum type has no labels", psprintf("It is %s.", format_type_be(type)));
	if (!choose_one(PG_GETARG_TEXT_PP(0), labels, &label, &error))
	{
		m1pg_report_or_null(&error);
		PG_RETURN_NULL();
	}
	return DirectFunctionCall2(enum_in, CStringGetDatum(label), ObjectIdGetDatum(type));
}

/* _task_classify(categories): what classify() asks before the text */
Datum
m1pg_classify_task(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(task_of_one(read_categories(PG_GETARG_ARRAYTYPE_P(0)))));
}
