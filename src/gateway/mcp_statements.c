/* mcp_statements.c - statements of tools that are more than a call of one function; see mcp_tool.h. */
#include <stdio.h>
#include <string.h>

#include "gateway/jsonform.h"
#include "gateway/mcp_tool.h"
#include "text/jsontext.h"

static long
whole_or(const m1_json *value, long otherwise)
{
	int64_t n;

	return m1_json_is_int64(value, &n) ? (long) n : otherwise;
}

static void
add_max_tokens(gw_statement *s, const m1_json *arguments)
{
	const m1_json *value = m1_json_get(arguments, "max_tokens");

	if (m1_json_is(value, M1_JSON_NUMBER))
		gw_sql_argument(s, "max_tokens", (m1_slice){value->text, value->n}, "int");
}

/* ---- extract ---- */

/* The task as extract() of SQL puts it: the model was taught that. */
static void
put_task(m1_buf *out, const m1_json *schema, m1_slice document)
{
	const char *comma = "";

	m1_buf_puts(out, "Extract ");
	m1_json_foreach (m1_json_get(schema, "properties"), property)
	{
		m1_buf_puts(out, comma);
		m1_buf_puts(out, m1_json_key(property));
		comma = ", ";
	}
	m1_buf_puts(out, comma[0] == '\0' ? "it as JSON.\n\n" : " as JSON.\n\n");
	m1_buf_append(out, document.data, document.len);
}

bool
mcp_make_extract(gw_mcp_call *call, const m1_json *arguments, gw_statement *s, gw_failure *failure)
{
	const m1_json *schema = m1_json_get(arguments, "schema");
	m1_buf task = {0};
	m1_buf written = {0};

	(void) call;
	(void) failure;
	put_task(&task, schema, m1_json_text(m1_json_get(arguments, "document")));
	m1_json_write(&written, schema, M1_JSON_AS_GIVEN);
	gw_sql(s, "SELECT minimax_m1.generate_json(");
	gw_sql_argument(s, "prompt", (m1_slice){task.data, task.len}, "text");
	gw_sql_argument(s, "json_schema", (m1_slice){written.data, written.len}, "minimax_m1.json_text");
	add_max_tokens(s, arguments);
	gw_sql(s, ")");
	s->failed |= task.failed || written.failed;
	m1_buf_free(&task);
	m1_buf_free(&written);
	return true;
}

/* ---- job ---- */

bool
mcp_make_job(gw_mcp_call *call, const m1_json *arguments, gw_statement *s, gw_failure *failure)
{
	const m1_json *job = m1_json_get(arguments, "job");
	const m1_slice id = {job->text, job->n};
	const long offset = whole_or(m1_json_get(arguments, "offset"), 0);
	/* a character has up to four bytes; escapes make it no longer than that on the average */
	const long most = (long) mcp_room(call) / 4;

	(void) failure;
	if (m1_json_is(m1_json_get(arguments, "cancel"), M1_JSON_TRUE))
	{
		s->writes = true;
		gw_sql(s, "SELECT pg_catalog.json_build_object('cancelled', minimax_m1.cancel_job(");
		gw_sql_value(s, id, "bigint");
		gw_sql(s, "))");
		return true;
	}
	gw_sql(s,
		   "SELECT pg_catalog.json_strip_nulls(pg_catalog.json_build_object('state', p.state, 'content', "
		   "pg_catalog.substr(p.content, w.first + 1, w.most), 'next_offset', CASE WHEN pg_catalog.length(p.content) > "
		   "w.first + w.most THEN w.first + w.most END, 'finish_reason', p.finish_reason, 'attempts', p.attempts, "
		   "'error', p.error, 'detail', p.detail, 'hint', p.hint)) FROM minimax_m1.poll(");
	gw_sql_value(s, id, "bigint");
	gw_sql(s, ") p, (SELECT ");
	gw_sql_number(s, offset < 0 ? 0 : offset, "int");
	gw_sql(s, " AS first, ");
	gw_sql_number(s, most, "int");
	gw_sql(s, " AS most) w");
	return true;
}

/* ---- ask_rows ---- */

/* "schema.table", or "table". */
static void
put_table(gw_statement *s, m1_slice name)
{
	const char *dot = memchr(name.data, '.', name.len);

	if (dot != NULL)
	{
		gw_sql_name(s, (m1_slice){name.data, (size_t) (dot - name.data)});
		gw_sql(s, ".");
		name.len -= (size_t) (dot + 1 - name.data);
		name.data = dot + 1;
	}
	gw_sql_name(s, name);
}

/* false where a value is neither text, number, truth value nor null. */
static bool
put_conditions(gw_statement *s, const m1_json *where)
{
	const char *word = " WHERE ";

	m1_json_foreach (where, value)
	{
		gw_sql(s, word);
		gw_sql_name(s, m1_slice_of(m1_json_key(value)));
		word = " AND ";
		if (m1_json_is(value, M1_JSON_ARRAY) || m1_json_is(value, M1_JSON_OBJECT))
			return false;
		if (m1_json_is(value, M1_JSON_NULL))
		{
			gw_sql(s, " IS NULL");
			continue;
		}
		gw_sql(s, " = ");
		if (m1_json_is_boolean(value))
			gw_sql_value(s, m1_slice_of(m1_json_is(value, M1_JSON_TRUE) ? "true" : "false"), NULL);
		else
			gw_sql_value(s, (m1_slice){value->text, value->n}, NULL);
	}
	return true;
}

/* The rows as lines of JSON, one more than asked for, in the order of the first column. */
static bool
put_found_rows(gw_statement *s, const m1_json *arguments, long limit, long offset)
{
	const char *comma = "SELECT ";

	gw_sql(s, "WITH found AS MATERIALIZED (SELECT pg_catalog.row_to_json(t)::text AS line FROM (");
	m1_json_foreach (m1_json_get(arguments, "columns"), column)
	{
		gw_sql(s, comma);
		gw_sql_name(s, m1_json_text(column));
		comma = ", ";
	}
	gw_sql(s, " FROM ");
	put_table(s, m1_json_text(m1_json_get(arguments, "table")));
	if (!put_conditions(s, m1_json_get(arguments, "where")))
		return false;
	gw_sql(s, " ORDER BY 1 LIMIT ");
	gw_sql_number(s, limit + 1, "bigint");
	gw_sql(s, " OFFSET ");
	gw_sql_number(s, offset, "bigint");
	gw_sql(s, ") t), ");
	return true;
}

/* The question, and the lines that the rows stand between. */
static void
put_question(gw_statement *s, m1_slice question)
{
	static const char place[] = "\n\nRows of a table are";
	m1_buf text = {0};
	const char *fence;

	m1_buf_append(&text, question.data, question.len);
	mcp_fence(&text, (m1_slice){0}, place);
	s->failed |= m1_buf_cstr(&text) == NULL;
	if (!s->failed)
	{
		/* the fence is the last line, and the line before the last one is empty */
		fence = strrchr(text.data, '\n');
		gw_sql_value(s, (m1_slice){text.data, (size_t) (fence - text.data)}, "text");
		gw_sql(s, " || coalesce(body, '') || ");
		gw_sql_value(s, m1_slice_of(fence), "text");
	}
	m1_buf_free(&text);
}

bool
mcp_make_ask_rows(gw_mcp_call *call, const m1_json *arguments, gw_statement *s, gw_failure *failure)
{
	const long most = call->gateway->options.max_rows;
	const long limit = whole_or(m1_json_get(arguments, "limit"), most);
	const long offset = whole_or(m1_json_get(arguments, "offset"), 0);

	if (m1_json_size(m1_json_get(arguments, "columns")) == 0 || limit < 1 || limit > most || offset < 0 ||
		!put_found_rows(s, arguments, limit, offset))
	{
		char detail[160];

		snprintf(
			detail, sizeof detail,
			"columns names at least one, limit is from 1 to %ld, and where has strings, numbers, true, false or null.",
			most);
		gw_failure_set(failure, "22023", "the arguments are out of range", detail, NULL);
		return false;
	}
	gw_sql(s, "counted AS (SELECT line, pg_catalog.row_number() OVER () AS n FROM found), data AS (SELECT "
			  "pg_catalog.string_agg(line, E'\\n' ORDER BY n) FILTER (WHERE n <= w.most) AS body, pg_catalog.count(n) "
			  "FILTER (WHERE n <= w.most) AS rows, pg_catalog.count(n) > w.most AS more, w.first FROM (SELECT ");
	gw_sql_number(s, limit, "bigint");
	gw_sql(s, " AS most, ");
	gw_sql_number(s, offset, "bigint");
	gw_sql(s, " AS first) w LEFT JOIN counted ON true GROUP BY w.most, w.first) SELECT pg_catalog.json_strip_nulls("
			  "pg_catalog.json_build_object('answer', minimax_m1.generate(");
	gw_sql(s, "prompt => ");
	put_question(s, m1_json_text(m1_json_get(arguments, "question")));
	s->in_call = true;
	add_max_tokens(s, arguments);
	gw_sql(s, "), 'rows', rows, 'next_offset', CASE WHEN more THEN first + rows END)) FROM data");
	return true;
}
