/* mcp_tools.c - the tools of MCP, as a table, and how they are listed; see mcp_tool.h. */
#include <string.h>

#include "gateway/jsonform.h"
#include "gateway/mcp_tool.h"
#include "text/jsontext.h"

#define PROMPT                                       \
	{                                                \
		"prompt", MCP_TEXT, "text", true, NULL, NULL \
	}
#define SYSTEM_PROMPT                                        \
	{                                                        \
		"system_prompt", MCP_TEXT, "text", false, NULL, NULL \
	}
#define MAX_TOKENS                                        \
	{                                                     \
		"max_tokens", MCP_WHOLE, "int", false, NULL, NULL \
	}
#define SCHEMA(argument, required)                                                           \
	{                                                                                        \
		"schema", MCP_OBJECT, argument, required, "json_schema", "JSON Schema of the answer" \
	}

const mcp_tool mcp_tools[] = {
	{.name = "generate",
	 .description = "Have MiniMax-M1 answer a prompt.",
	 .parameters = {PROMPT,
					SYSTEM_PROMPT,
					MAX_TOKENS,
					{"thinking_budget", MCP_WHOLE, "int", false, NULL, "tokens of reasoning; 0 none, -1 no limit"},
					{"temperature", MCP_NUMBER, "float8", false, NULL, NULL},
					{"seed", MCP_WHOLE, "bigint", false, NULL, NULL},
					{"stop", MCP_TEXTS, "text[]", false, NULL, NULL}},
	 .before = "SELECT minimax_m1.generate(",
	 .behind = ")"},
	{.name = "summarize",
	 .description = "Summarize a text of any length.",
	 .parameters = {{"document", MCP_TEXT, "text", true, NULL, NULL},
					{"instruction", MCP_TEXT, "text", false, NULL, NULL},
					MAX_TOKENS},
	 .before = "SELECT minimax_m1.summarize(",
	 .behind = ")"},
	{.name = "classify",
	 .description = "Choose the category of a text, or with multi all that fit.",
	 .parameters = {{"input", MCP_TEXT, "text", true, NULL, NULL},
					{"categories", MCP_TEXTS, "text[]", true, NULL, NULL},
					{"multi", MCP_BOOLEAN, "bool", false, NULL, NULL}},
	 .before = "SELECT pg_catalog.json_build_object('categories', minimax_m1.classify(",
	 .behind = "))",
	 .structured = true},
	{.name = "extract",
	 .description = "Extract fields from a text as JSON that follows a JSON Schema of type object.",
	 .parameters = {{"document", MCP_TEXT, NULL, true, NULL, NULL}, SCHEMA(NULL, true), MAX_TOKENS},
	 .make = mcp_make_extract,
	 .structured = true},
	{.name = "rank",
	 .description = "Rank documents by how probably a statement is true of them. Gives index (from 1) and score.",
	 .parameters = {{"query", MCP_TEXT, "text", true, NULL, "such as: the customer wants a refund"},
					{"documents", MCP_TEXTS, "text[]", true, NULL, NULL},
					{"k", MCP_WHOLE, "int", false, NULL, "how many"}},
	 .before = "SELECT pg_catalog.json_build_object('index', ord, 'score', score) FROM minimax_m1.rank(",
	 .behind = ")",
	 .rows = true,
	 .structured = true},
	{.name = "ask_rows",
	 .description = "Have MiniMax-M1 answer a question over rows of a table or view of the database.",
	 .parameters = {{"question", MCP_TEXT, NULL, true, NULL, NULL},
					{"table", MCP_TEXT, NULL, true, NULL, "name or schema.name"},
					{"columns", MCP_TEXTS, NULL, true, NULL, NULL},
					{"where", MCP_OBJECT, NULL, false, NULL, "column: value, all equal"},
					{"limit", MCP_WHOLE, NULL, false, NULL, NULL},
					{"offset", MCP_WHOLE, NULL, false, NULL, NULL},
					MAX_TOKENS},
	 .make = mcp_make_ask_rows,
	 .structured = true},
	{.name = "submit_job",
	 .description = "Queue a prompt to be answered in the background. Gives the job for `job`.",
	 .parameters = {PROMPT,
					SYSTEM_PROMPT,
					MAX_TOKENS,
					SCHEMA("minimax_m1.json_text", false),
					{"priority", MCP_WHOLE, "int", false, NULL, NULL},
					{"dedupe_key", MCP_TEXT, "text", false, NULL, NULL}},
	 .before = "SELECT pg_catalog.json_build_object('job', minimax_m1.submit(",
	 .behind = "))",
	 .structured = true,
	 .writes = true},
	{.name = "job",
	 .description = "State and answer of a queued job, or cancel it.",
	 .parameters = {{"job", MCP_WHOLE, NULL, true, NULL, NULL},
					{"cancel", MCP_BOOLEAN, NULL, false, NULL, NULL},
					{"offset", MCP_WHOLE, NULL, false, NULL, "first character of the answer"}},
	 .make = mcp_make_job,
	 .structured = true,
	 .writes = true},
};

const size_t mcp_n_tools = sizeof mcp_tools / sizeof *mcp_tools;

/* ---- which there are ---- */

/* Whether the list, which has commas between names, has this one. */
static bool
lists(const char *list, const char *name)
{
	const size_t n = strlen(name);

	for (const char *at = list; at != NULL && *at != '\0'; at = strchr(at, ','))
	{
		at += *at == ',';
		if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == '\0'))
			return true;
	}
	return false;
}

bool
mcp_has_tool(const gw_gateway *gateway, const mcp_tool *tool)
{
	return gateway->options.tools == NULL || lists(gateway->options.tools, tool->name);
}

const mcp_tool *
mcp_find_tool(const gw_gateway *gateway, const m1_json *name)
{
	for (size_t i = 0; i < mcp_n_tools; i++)
		if (m1_json_is_text(name, mcp_tools[i].name) && mcp_has_tool(gateway, &mcp_tools[i]))
			return &mcp_tools[i];
	return NULL;
}

static bool
is_built_in(const char *name, size_t length)
{
	for (size_t i = 0; i < mcp_n_tools; i++)
		if (strlen(mcp_tools[i].name) == length && strncmp(mcp_tools[i].name, name, length) == 0)
			return true;
	return false;
}

/* The name that a function of --functions has as a tool. */
static const char *
name_of(const char *function)
{
	return strchr(function, '.') + 1;
}

m1_status
gw_mcp_check_options(const gw_options *options, m1_error *err)
{
	for (const char *at = options->tools; at != NULL && *at != '\0'; at += strcspn(at, ","))
	{
		at += *at == ',';
		if (!is_built_in(at, strcspn(at, ",")))
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "--tools names no tool by \"%.*s\"", (int) strcspn(at, ","), at);
	}
	for (int i = 0; i < options->n_functions; i++)
	{
		const char *name = name_of(options->functions[i]);
		bool taken = is_built_in(name, strlen(name));

		for (int k = 0; k < i; k++)
			taken = taken || strcmp(name, name_of(options->functions[k])) == 0;
		if (taken)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "there is another tool \"%s\" than %s", name,
						   options->functions[i]);
	}
	return M1_OK;
}

static void
put_parameter(m1_buf *out, const mcp_parameter *p)
{
	static const char *const types[] = {"string", "integer", "number", "boolean", "array", "object"};

	gw_json(out, "%s:{'type':%s", p->name, types[p->kind]);
	if (p->kind == MCP_TEXTS)
		gw_json(out, ",'items':{'type':'string'}");
	if (p->description != NULL)
		gw_json(out, ",'description':%s", p->description);
	gw_json(out, "}");
}

void
mcp_put_tool(m1_buf *out, const mcp_tool *tool)
{
	const char *comma = "";

	gw_json(out, "{'name':%s,'description':%s,'inputSchema':{'type':'object','properties':{", tool->name,
			tool->description);
	for (const mcp_parameter *p = tool->parameters; p->name != NULL; p++, comma = ",")
	{
		m1_buf_puts(out, comma);
		put_parameter(out, p);
	}
	gw_json(out, "},'required':[");
	comma = "";
	for (const mcp_parameter *p = tool->parameters; p->name != NULL; p++)
		if (p->required)
		{
			gw_json(out, "%r%s", m1_slice_of(comma), p->name);
			comma = ",";
		}
	gw_json(out, "]},'annotations':{'readOnlyHint':%b%r}}", !tool->writes,
			m1_slice_of(tool->writes ? ",\"destructiveHint\":false" : ""));
}

/* ---- their arguments ---- */

static bool
is_of_kind(const m1_json *value, mcp_kind kind)
{
	switch (kind)
	{
		case MCP_TEXT:
			return m1_json_is(value, M1_JSON_STRING);
		case MCP_WHOLE:
			return m1_json_is(value, M1_JSON_NUMBER) && m1_json_is_whole(value);
		case MCP_NUMBER:
			return m1_json_is(value, M1_JSON_NUMBER);
		case MCP_BOOLEAN:
			return m1_json_is_boolean(value);
		case MCP_TEXTS:
			m1_json_foreach (value, item)
				if (!m1_json_is(item, M1_JSON_STRING))
					return false;
			return m1_json_is(value, M1_JSON_ARRAY);
		default:
			return m1_json_is(value, M1_JSON_OBJECT);
	}
}

static const mcp_parameter *
find_parameter(const mcp_tool *tool, const char *name)
{
	for (const mcp_parameter *p = tool->parameters; p->name != NULL; p++)
		if (strcmp(p->name, name) == 0)
			return p;
	return NULL;
}

static bool
fail_argument(gw_failure *failure, const char *name, const char *what)
{
	char message[256];

	snprintf(message, sizeof message, "argument \"%.100s\" %s", name, what);
	gw_failure_set(failure, "22023", message, NULL, NULL);
	return false;
}

bool
mcp_check_arguments(const mcp_tool *tool, const m1_json *arguments, gw_failure *failure)
{
	static const char *const wanted[] = {"is to be a string",  "is to be a whole number",	   "is to be a number",
										 "is to be a boolean", "is to be an array of strings", "is to be an object"};

	m1_json_foreach (arguments, value)
	{
		const mcp_parameter *p = find_parameter(tool, m1_json_key(value));

		if (p == NULL)
			return fail_argument(failure, m1_json_key(value), "is not known");
		if (!is_of_kind(value, p->kind) && !m1_json_is(value, M1_JSON_NULL))
			return fail_argument(failure, p->name, wanted[p->kind]);
	}
	for (const mcp_parameter *p = tool->parameters; p->name != NULL; p++)
	{
		const m1_json *value = m1_json_get(arguments, p->name);

		if (p->required && (value == NULL || m1_json_is(value, M1_JSON_NULL)))
			return fail_argument(failure, p->name, "is missing");
	}
	return true;
}

/* As PostgreSQL reads arrays: {"one","two"}. */
static void
put_array(m1_buf *out, const m1_json *texts)
{
	const char *comma = "{";

	m1_json_foreach (texts, item)
	{
		const m1_slice text = m1_json_text(item);

		m1_buf_puts(out, comma);
		m1_buf_puts(out, "\"");
		for (size_t i = 0; i < text.len; i++)
		{
			if (text.data[i] == '"' || text.data[i] == '\\')
				m1_buf_puts(out, "\\");
			m1_buf_append(out, text.data + i, 1);
		}
		m1_buf_puts(out, "\"");
		comma = ",";
	}
	m1_buf_puts(out, m1_json_size(texts) == 0 ? "{}" : "}");
}

static void
add_argument(gw_statement *s, const mcp_parameter *p, const m1_json *value)
{
	m1_buf text = {0};

	if (p->kind == MCP_TEXT)
		m1_buf_append(&text, value->text, value->n);
	else if (p->kind == MCP_TEXTS)
		put_array(&text, value);
	else
		m1_json_write(&text, value, M1_JSON_AS_GIVEN);
	s->failed |= text.failed;
	gw_sql_argument(s, p->argument == NULL ? p->name : p->argument, (m1_slice){text.data, text.len}, p->type);
	m1_buf_free(&text);
}

void
mcp_add_arguments(const mcp_tool *tool, const m1_json *arguments, gw_statement *statement)
{
	for (const mcp_parameter *p = tool->parameters; p->name != NULL; p++)
	{
		const m1_json *value = m1_json_get(arguments, p->name);

		if (value != NULL && p->type != NULL && !m1_json_is(value, M1_JSON_NULL))
			add_argument(statement, p, value);
	}
}
