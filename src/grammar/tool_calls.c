/* tool_calls.c - see tool_calls.h. */
#include "grammar/tool_calls.h"

#include <stdio.h>
#include <string.h>

#include "grammar/jsonschema.h"
#include "text/jsontext.h"
#include "text/markup.h"
#include "text/tools.h"

/* ---- the choice ---- */

static bool
is(m1_slice text, const char *word)
{
	return text.len == strlen(word) && memcmp(text.data, word, text.len) == 0;
}

bool
m1_tool_choice_is_none(m1_slice choice)
{
	return is(choice, "none");
}

bool
m1_tool_choice_is_free(m1_slice choice)
{
	return choice.len == 0 || is(choice, "auto") || m1_tool_choice_is_none(choice);
}

/* The name in OpenAI's form of a choice; empty when it is none. */
static m1_slice
name_of_choice(const m1_json *choice)
{
	static const char *const keys[] = {"type", "function", NULL};
	static const char *const function_keys[] = {"name", NULL};
	const m1_json *function = m1_json_get(choice, "function");

	if (!m1_json_is_text(m1_json_get(choice, "type"), "function") || m1_json_other_key(choice, keys) != NULL ||
		m1_json_other_key(function, function_keys) != NULL)
		return (m1_slice){0};
	return m1_json_text(m1_json_get(function, "name"));
}

/* What the choice says; *only: the one tool, or NULL. */
static m1_status
read_choice(m1_slice choice, m1_json_doc *doc, m1_calls *calls, m1_slice *only, m1_error *err)
{
	*calls = m1_tool_choice_is_none(choice)	  ? M1_CALLS_NONE
			 : m1_tool_choice_is_free(choice) ? M1_CALLS_AUTO
											  : M1_CALLS_REQUIRED;
	if (*calls != M1_CALLS_REQUIRED || is(choice, "required"))
		return M1_OK;
	*only = choice;
	if (choice.data[0] != '{')
		return M1_OK;
	if (m1_json_parse(choice, "tool_choice", NULL, doc, err) != M1_OK)
		return err->code;
	*only = name_of_choice(doc->root);
	if (only->len > 0)
		return M1_OK;
	m1_fail(err, M1_E_UNSUPPORTED, "tool_choice is an object of an unknown form");
	m1_error_hint(err, "Give auto, none, required, a tool's name, or {\"type\": \"function\", \"function\": "
					   "{\"name\": ...}}.");
	return M1_E_UNSUPPORTED;
}

/* ---- arguments ---- */

/* Says at which tool the schema is at fault. */
static m1_status
blame(size_t i, m1_status status, m1_error *err)
{
	char message[sizeof err->message];

	snprintf(message, sizeof message, "%s", err->message);
	snprintf(err->message, sizeof err->message, "tools[%zu].parameters: %.220s", i, message);
	return status;
}

static bool
is_object_schema(const m1_json *schema)
{
	const m1_json *type = m1_json_get(schema, "type");

	return m1_json_is(schema, M1_JSON_OBJECT) && (type == NULL || m1_json_is_text(type, "object"));
}

/* A schema that says nothing of its values describes any object: arguments are one. */
static bool
says_nothing(const m1_json *schema)
{
	static const char *const keys[] = {"title",	   "description", "$schema",	 "$id",
									   "$comment", "$defs",		  "definitions", NULL};

	return m1_json_other_key(schema, keys) == NULL;
}

static m1_status
write_arguments(m1_nfa *nfa, const m1_tool *tool, size_t i, int32_t next, int32_t *start, m1_error *err)
{
	m1_status status;

	if (tool->parameters == NULL)
	{
		*start = m1_nfa_literal(nfa, m1_slice_of("{}"), next);
		return M1_OK;
	}
	if (!is_object_schema(tool->parameters))
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "tools[%zu].parameters is not the schema of an object", i);
		m1_error_hint(err, "Arguments have names: {\"type\": \"object\", \"properties\": ...}.");
		return M1_E_INVALID_ARGUMENT;
	}
	if (says_nothing(tool->parameters))
		return m1_jsonschema_compile(nfa, m1_slice_of("{\"type\": \"object\"}"), next, start, err);
	status = m1_jsonschema_compile_value(nfa, tool->parameters, next, start, err);
	return status == M1_OK ? M1_OK : blame(i, status, err);
}

/* ---- calls ---- */

/* The rule of a call of the tool. */
static m1_status
write_call(m1_nfa *nfa, const m1_tool *tool, size_t i, int *rule, m1_error *err)
{
	m1_buf head = {0};
	int32_t arguments;
	m1_status status;

	*rule = m1_nfa_new_rule(nfa, false);
	status = write_arguments(nfa, tool, i, m1_nfa_literal(nfa, m1_slice_of("}"), M1_NFA_RETURN), &arguments, err);
	if (status != M1_OK)
		return status;
	m1_buf_puts(&head, "{\"name\": ");
	m1_json_write_string(&head, tool->name);
	m1_buf_puts(&head, ", \"arguments\": ");
	nfa->failed |= head.failed;
	m1_nfa_set_rule(nfa, *rule, m1_nfa_literal(nfa, (m1_slice){head.data, head.len}, arguments));
	m1_buf_free(&head);
	return M1_OK;
}

static bool
same(m1_slice a, m1_slice b)
{
	return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

static m1_status
check_distinct(const m1_json *tools, m1_slice name, size_t i, m1_error *err)
{
	m1_tool other;

	for (size_t k = 0; k < i; k++)
		if (m1_tool_read(m1_json_at(tools, k), k, &other, err) == M1_OK && same(other.name, name))
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "tools[%zu] has the same name as tools[%zu]", i, k);
	return M1_OK;
}

/* The rule of a call of any of the tools, or of `only`. */
static m1_status
write_any_call(m1_nfa *nfa, const m1_json *tools, m1_slice only, int *rule, m1_error *err)
{
	int32_t start = M1_NFA_FAIL;
	bool found = only.len == 0;
	m1_status status;
	size_t i = 0;

	*rule = m1_nfa_new_rule(nfa, false);
	m1_json_foreach (tools, definition)
	{
		m1_tool tool;
		int call;

		if ((status = m1_tool_read(definition, i, &tool, err)) != M1_OK ||
			(status = check_distinct(tools, tool.name, i, err)) != M1_OK)
			return status;
		if (only.len == 0 || same(tool.name, only))
		{
			found = true;
			if ((status = write_call(nfa, &tool, i, &call, err)) != M1_OK)
				return status;
			start = m1_nfa_split(nfa, m1_nfa_call(nfa, call, M1_NFA_RETURN), start);
		}
		i++;
	}
	m1_nfa_set_rule(nfa, *rule, start);
	if (!found)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "tool_choice is \"%.*s\", which is no tool's name",
					   (int) (only.len < 100 ? only.len : 100), only.data);
	return M1_OK;
}

/* One call or more, each with its line break, up to the most there may be. */
static int32_t
repeat(m1_nfa *nfa, int call, int most)
{
	const int32_t close = m1_nfa_literal(nfa, m1_slice_of(M1_CALLS_CLOSE), M1_NFA_RETURN);
	const m1_slice line_break = m1_slice_of("\n");
	int32_t next = close;

	while (--most > 0)
		next = m1_nfa_split(nfa, m1_nfa_call(nfa, call, m1_nfa_literal(nfa, line_break, next)), close);
	return m1_nfa_call(nfa, call, m1_nfa_literal(nfa, line_break, next));
}

static m1_status
write_calls(m1_nfa *nfa, m1_slice text, m1_slice only, int32_t *start, m1_error *err)
{
	m1_json_doc tools;
	int call;
	m1_status status = m1_tools_parse(text, nfa->work, &tools, err);

	if (status == M1_OK && m1_json_size(tools.root) > 0 &&
		(status = write_any_call(nfa, tools.root, only, &call, err)) == M1_OK)
		*start = m1_nfa_literal(nfa, m1_slice_of("\n"), repeat(nfa, call, only.len > 0 ? 1 : M1_MAX_CALLS));
	m1_json_free(&tools);
	return status;
}

m1_status
m1_tool_calls_compile(m1_nfa *nfa, m1_slice tools, m1_slice choice, m1_calls *calls, int32_t *start, m1_error *err)
{
	m1_json_doc doc = {0};
	m1_slice only = {0};
	m1_status status = read_choice(choice, &doc, calls, &only, err);

	*start = M1_NFA_FAIL;
	if (status == M1_OK && *calls != M1_CALLS_NONE)
		status = write_calls(nfa, tools, only, start, err);
	m1_json_free(&doc);
	return status;
}
