/*
 * mcp_functions.c - SQL functions as tools of MCP, those that --functions lists; see mcp_tool.h.
 *
 * What a function takes is read from the catalog each time, with the rights of who asks: who may not execute it does
 * not see it. A call passes all arguments as one JSON text, of which the database makes values of their types.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway/jsonform.h"
#include "gateway/mcp_tool.h"
#include "text/jsontext.h"

/* ---- the catalog ---- */

/*
 * Of the functions that $1 names as schema.name, in its order: the definition of the tool, and the call with those
 * arguments that $2 names. Only types that a value can be made of from JSON; no overloads, which a name would not tell
 * apart, be they for who asks or not.
 */
static const char catalog[] =
	"WITH named AS ("
	" SELECT w.place, p.*, n.nspname, pg_catalog.count(*) OVER (PARTITION BY w.place) AS overloads"
	" FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS w(name, place)"
	" JOIN pg_catalog.pg_namespace n ON n.nspname = pg_catalog.split_part(w.name, '.', 1)"
	" JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid"
	"  AND p.proname = pg_catalog.substr(w.name, pg_catalog.strpos(w.name, '.') + 1)"
	" WHERE pg_catalog.has_schema_privilege(n.oid, 'USAGE')),"
	"wanted AS ("
	" SELECT f.* FROM named f JOIN pg_catalog.pg_type r ON r.oid = f.prorettype"
	" WHERE f.overloads = 1 AND f.prokind = 'f' AND pg_catalog.has_function_privilege(f.oid, 'EXECUTE')"
	"  AND (r.typtype <> 'p' OR r.typname = 'void' OR (r.typname = 'record' AND f.proallargtypes IS NOT NULL))),"
	"arguments AS ("
	" SELECT f.oid, a.name, a.place, a.mode, pg_catalog.format_type(a.type, NULL) AS type,"
	"  a.place > f.pronargs - f.pronargdefaults AS optional, t.typtype = 'p' AS pseudo, t.typcategory = 'A' AS "
	"is_array,"
	"  CASE e.typcategory WHEN 'B' THEN '{\"type\":\"boolean\"}'"
	"   WHEN 'N' THEN CASE WHEN coalesce(nullif(e.typbasetype, 0), e.oid) IN (20, 21, 23, 26) THEN "
	"'{\"type\":\"integer\"}'"
	"    ELSE '{\"type\":\"number\"}' END"
	"   WHEN 'E' THEN (SELECT pg_catalog.json_build_object('type', 'string', 'enum', pg_catalog.json_agg(l.enumlabel"
	"    ORDER BY l.enumsortorder)) FROM pg_catalog.pg_enum l WHERE l.enumtypid = coalesce(nullif(e.typbasetype, 0), "
	"e.oid))::text"
	"   WHEN 'C' THEN '{\"type\":\"object\"}'"
	"   WHEN 'S' THEN '{\"type\":\"string\"}'"
	"   ELSE CASE WHEN e.typname IN ('json', 'jsonb', 'json_text') THEN '{}'"
	"    ELSE pg_catalog.json_build_object('type', 'string', 'description', pg_catalog.format_type(e.oid, NULL))::text "
	"END"
	"   END::json AS schema"
	" FROM wanted f CROSS JOIN LATERAL ("
	"  SELECT x.name, x.type, x.mode, pg_catalog.row_number() OVER (ORDER BY x.place) AS place"
	"  FROM ROWS FROM (pg_catalog.unnest(coalesce(f.proallargtypes, f.proargtypes::oid[])),"
	"   pg_catalog.unnest(f.proargnames), pg_catalog.unnest(f.proargmodes)) WITH ORDINALITY AS x(type, name, mode, "
	"place)"
	"  WHERE x.type IS NOT NULL AND coalesce(x.mode, 'i') IN ('i', 'b', 'v')) a"
	" JOIN pg_catalog.pg_type t ON t.oid = a.type"
	" JOIN pg_catalog.pg_type e ON e.oid = CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem ELSE t.oid "
	"END),"
	"summed AS ("
	" SELECT a.oid, pg_catalog.bool_or(a.pseudo OR coalesce(a.name, '') = '') AS unfit,"
	"  pg_catalog.json_object_agg(a.name, CASE WHEN a.is_array THEN pg_catalog.json_build_object('type', 'array', "
	"'items',"
	"   a.schema) ELSE a.schema END ORDER BY a.place) FILTER (WHERE a.name <> '') AS properties,"
	"  pg_catalog.json_agg(a.name ORDER BY a.place) FILTER (WHERE NOT a.optional) AS required,"
	"  pg_catalog.string_agg(pg_catalog.format('%I %s', a.name, a.type), ', ' ORDER BY a.place)"
	"   FILTER (WHERE a.name = ANY ($2::text[])) AS columns,"
	"  pg_catalog.string_agg(pg_catalog.format(CASE WHEN a.mode = 'v' THEN 'VARIADIC %I => a.%I' ELSE '%I => a.%I' END,"
	"   a.name, a.name), ', ' ORDER BY a.place) FILTER (WHERE a.name = ANY ($2::text[])) AS passed,"
	"  pg_catalog.array_agg(a.name::text) AS names"
	" FROM arguments a GROUP BY a.oid) "
	"SELECT f.proname, pg_catalog.json_build_object('type', 'object', 'properties',"
	"  coalesce(s.properties::jsonb, '{}') || CASE WHEN f.proretset THEN '{\"_offset\": {\"type\": \"integer\", "
	"   \"description\": \"first row\"}}'::jsonb ELSE '{}' END, 'required', coalesce(s.required, '[]')),"
	" pg_catalog.obj_description(f.oid, 'pg_proc'), f.provolatile = 'v', f.proretset,"
	" pg_catalog.format('SELECT pg_catalog.to_json(f) FROM %s%I.%I(%s) AS f', CASE WHEN s.columns IS NULL THEN '' ELSE"
	"  pg_catalog.format('pg_catalog.json_to_record($1::json) AS a(%s) CROSS JOIN LATERAL ', s.columns) END, f.nspname,"
	"  f.proname, s.passed), s.columns IS NULL,"
	" (SELECT pg_catalog.min(k) FROM pg_catalog.unnest($2::text[]) k WHERE k <> ALL (coalesce(s.names, '{}'))) "
	"FROM wanted f LEFT JOIN summed s ON s.oid = f.oid "
	"WHERE s.unfit IS NOT TRUE ORDER BY f.place";

/* Its columns. */
enum
{
	NAME,
	SCHEMA,
	COMMENT,
	IS_VOLATILE,
	IS_SET,
	CALL,
	IS_BARE, /* the call has no parameter */
	UNKNOWN, /* an argument that the function does not have */
};

static bool
is_true(const PGresult *result, int row, int column)
{
	return PQgetvalue(result, row, column)[0] == 't';
}

static void
append_literal(m1_buf *array, const char *text)
{
	m1_buf_puts(array, array->len == 0 ? "{\"" : ",\"");
	for (; *text != '\0'; text++)
	{
		if (*text == '"' || *text == '\\')
			m1_buf_puts(array, "\\");
		m1_buf_append(array, text, 1);
	}
	m1_buf_puts(array, "\"");
}

/* An array's text that append_literal has begun. */
static m1_slice
ended(m1_buf *array)
{
	m1_buf_puts(array, array->len == 0 ? "{}" : "}");
	return (m1_slice){array->data, array->len};
}

/* Reads the catalog for functions and names of arguments, both as texts of arrays, which it frees. */
static void
ask_catalog(gw_mcp_call *call, m1_buf *functions, m1_buf *arguments, const gw_reader *reader)
{
	gw_statement s = {0};

	gw_sql(&s, catalog);
	s.n_values = 2;
	s.values[0] = *functions;
	s.values[1] = *arguments;
	ended(&s.values[0]);
	ended(&s.values[1]);
	mcp_run(call, &s, reader);
}

/* ---- tools/list ---- */

static void
list_row(void *context, const PGresult *result, int row)
{
	gw_mcp_call *call = context;
	const bool writes = call->gateway->options.write && is_true(result, row, IS_VOLATILE);

	gw_json(&call->text, "%r{'name':%s,'description':%s,'inputSchema':%r,'annotations':{'readOnlyHint':%b%r}}",
			m1_slice_of(call->text.data[call->text.len - 1] == '[' ? "" : ","), PQgetvalue(result, row, NAME),
			PQgetisnull(result, row, COMMENT) ? "an SQL function" : PQgetvalue(result, row, COMMENT),
			m1_slice_of(PQgetvalue(result, row, SCHEMA)), !writes,
			m1_slice_of(writes ? ",\"destructiveHint\":true" : ""));
}

static void
give_list(gw_mcp_call *call)
{
	/* what a role may execute is its own, and may change */
	const bool shared = call->gateway->options.n_functions == 0;

	gw_json(&call->text, "]");
	if (call->modern)
		gw_json(&call->text, ",'ttlMs':%d,'cacheScope':%s", (int64_t) (shared ? 3600000 : 60000),
				shared ? "public" : "private");
	mcp_succeed(call, (m1_slice){call->text.data, call->text.len});
}

static void
list_end(void *context, const gw_failure *failure)
{
	gw_mcp_call *call = context;

	call->query = NULL;
	if (failure != NULL)
		mcp_fail(call, failure);
	else
		give_list(call);
}

void
mcp_list_functions(gw_mcp_call *call)
{
	static const gw_reader reader = {.row = list_row, .end = list_end};
	const gw_options *options = &call->gateway->options;
	m1_buf names = {0};
	m1_buf none = {0};

	for (int i = 0; i < options->n_functions; i++)
		append_literal(&names, options->functions[i]);
	if (options->n_functions == 0)
		give_list(call);
	else
		ask_catalog(call, &names, &none, &reader);
}

/* ---- tools/call: the rows of the function ---- */

static void
give_rows(gw_mcp_call *call)
{
	m1_buf structured = {0};
	m1_buf text = {0};

	gw_json(&structured, "{'rows':[%r]", (m1_slice){call->text.data, call->text.len});
	if (call->cut)
		gw_json(&structured, ",'next_offset':%d", call->offset + call->n_rows);
	gw_json(&structured, "}");
	mcp_fence(&text, (m1_slice){structured.data, structured.len}, "Rows of the database are");
	mcp_give_text(call, (m1_slice){text.data, text.len}, (m1_slice){structured.data, structured.len}, false);
	m1_buf_free(&structured);
	m1_buf_free(&text);
}

static void
result_end(void *context, const gw_failure *failure)
{
	gw_mcp_call *call = context;
	gw_failure too_long;

	call->query = NULL;
	if (failure != NULL)
		mcp_give_failure(call, failure);
	else if (call->cut && call->n_rows == 0)
	{
		gw_failure_set(&too_long, "54000", "a row is longer than a result may be", NULL, "Ask for less of it.");
		mcp_give_failure(call, &too_long);
	}
	else
		give_rows(call);
}

/* ---- tools/call: what the catalog says ---- */

static void
prepare_row(void *context, const PGresult *result, int row)
{
	gw_mcp_call *call = context;

	call->n_rows++;
	m1_buf_puts(&call->text, PQgetvalue(result, row, CALL));
	call->function = (mcp_function){.found = true,
									.writes = call->gateway->options.write && is_true(result, row, IS_VOLATILE),
									.is_set = is_true(result, row, IS_SET),
									.is_bare = is_true(result, row, IS_BARE)};
	if (!PQgetisnull(result, row, UNKNOWN))
		m1_buf_puts(&call->sought, PQgetvalue(result, row, UNKNOWN));
}

/* All arguments but ours, as one JSON text. */
static void
add_arguments(gw_statement *s, const m1_json *arguments)
{
	const char *comma = "{";
	m1_buf out = {0};

	m1_json_foreach (arguments, value)
	{
		if (strcmp(m1_json_key(value), "_offset") == 0)
			continue;
		gw_json(&out, "%r%s:%j", m1_slice_of(comma), m1_json_key(value), value);
		comma = ",";
	}
	m1_buf_puts(&out, comma[0] == '{' ? "{}" : "}");
	s->failed |= out.failed;
	s->values[s->n_values++] = out;
}

static void
run_function(gw_mcp_call *call)
{
	static const gw_reader reader = {.row = mcp_take_row, .end = result_end};
	const m1_json *arguments = m1_json_get(call->params, "arguments");
	gw_statement s = {.writes = call->function.writes, .by_row = true, .sql = call->text};

	call->text = (m1_buf){0};
	call->n_rows = 0;
	if (!call->function.is_bare)
		add_arguments(&s, arguments);
	if (call->function.is_set)
	{
		m1_json_is_int64(m1_json_get(arguments, "_offset"), &call->offset);
		gw_sql(&s, " OFFSET ");
		gw_sql_number(&s, (long) call->offset, "bigint");
		gw_sql(&s, " LIMIT ");
		gw_sql_number(&s, call->gateway->options.max_rows + 1, "bigint");
	}
	mcp_run(call, &s, &reader);
}

static void
prepare_end(void *context, const gw_failure *failure)
{
	gw_mcp_call *call = context;
	gw_failure unknown;

	call->query = NULL;
	if (failure != NULL)
		mcp_give_failure(call, failure);
	else if (!call->function.found)
		mcp_refuse(call, MCP_INVALID_PARAMS, 200, "Unknown tool", (m1_slice){0});
	else if (call->sought.len > 0)
	{
		gw_failure_set(&unknown, "22023", "the function has no such argument", m1_buf_cstr(&call->sought), NULL);
		mcp_give_failure(call, &unknown);
	}
	else
		run_function(call);
}

/* The function of --functions that the tool's name stands for. */
static const char *
find_function(const gw_options *options, const char *name)
{
	for (int i = 0; name != NULL && i < options->n_functions; i++)
		if (strcmp(strchr(options->functions[i], '.') + 1, name) == 0)
			return options->functions[i];
	return NULL;
}

void
mcp_call_function(gw_mcp_call *call)
{
	static const gw_reader reader = {.row = prepare_row, .end = prepare_end};
	const char *function = find_function(&call->gateway->options, m1_json_cstr(m1_json_get(call->params, "name")));
	m1_buf functions = {0};
	m1_buf arguments = {0};

	if (function == NULL)
	{
		mcp_refuse(call, MCP_INVALID_PARAMS, 200, "Unknown tool", (m1_slice){0});
		return;
	}
	append_literal(&functions, function);
	m1_json_foreach (m1_json_get(call->params, "arguments"), value)
		if (strcmp(m1_json_key(value), "_offset") != 0)
			append_literal(&arguments, m1_json_key(value));
	ask_catalog(call, &functions, &arguments, &reader);
}
