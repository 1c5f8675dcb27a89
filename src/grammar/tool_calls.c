/* tool_calls.c - see tool_calls.h. */
#include "grammar/tool_calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"
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

static m1_status
not_objects(size_t i, m1_error *err)
{
	m1_fail(err, M1_E_INVALID_ARGUMENT, "tools[%zu].parameters is not the schema of an object", i);
	m1_error_detail(err, "It must not describe anything else, either.");
	m1_error_hint(err, "Arguments have names: {\"type\": \"object\", \"properties\": ...}.");
	return M1_E_INVALID_ARGUMENT;
}

static m1_status
write_arguments(m1_nfa *nfa, const m1_tool *tool, size_t i, int32_t next, int32_t *start, m1_error *err)
{
	const int32_t first = nfa->n_nodes;
	m1_status status;

	if (tool->parameters == NULL)
	{
		*start = m1_nfa_literal(nfa, m1_slice_of("{}"), next);
		return M1_OK;
	}
	if (!m1_json_is(tool->parameters, M1_JSON_OBJECT))
		return not_objects(i, err);
	/* what describes any value describes any object: arguments are one */
	if (m1_jsonschema_says_nothing(tool->parameters))
		return m1_jsonschema_compile(nfa, m1_slice_of("{\"type\": \"object\"}"), next, start, err);
	status = m1_jsonschema_compile_value(nfa, tool->parameters, next, start, err);
	if (status != M1_OK)
		return blame(i, status, err);
	return nfa->failed || m1_nfa_begins_with(nfa, first, *start, '{') ? M1_OK : not_objects(i, err);
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

/* A tool's name, and which of the tools it is of. */
typedef struct named
{
	m1_slice name;
	size_t i;
} named;

static int
by_name(const void *a, const void *b)
{
	const named *x = a;
	const named *y = b;
	const size_t len = x->name.len < y->name.len ? x->name.len : y->name.len;
	const int order = memcmp(x->name.data, y->name.data, len);

	if (order != 0 || x->name.len != y->name.len)
		return order != 0 ? order : x->name.len < y->name.len ? -1 : 1;
	return (x->i > y->i) - (x->i < y->i);
}

/* Equal names are next to each other when they are sorted. */
static m1_status
find_equal(named *names, size_t n, m1_error *err)
{
	m1_sort(names, n, sizeof *names, by_name);
	for (size_t k = 1; k < n; k++)
		if (same(names[k - 1].name, names[k].name))
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "tools[%zu] has the same name as tools[%zu]", names[k].i,
						   names[k - 1].i);
	return M1_OK;
}

static m1_status
check_distinct(const m1_json *tools, m1_error *err)
{
	named *names = malloc((m1_json_size(tools) + 1) * sizeof *names);
	m1_status status = M1_OK;
	size_t n = 0;

	if (names == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the tools");
	m1_json_foreach (tools, definition)
	{
		m1_tool tool = {0};

		if (status == M1_OK)
			status = m1_tool_read(definition, n, &tool, err);
		names[n] = (named){tool.name, n};
		n++;
	}
	if (status == M1_OK)
		status = find_equal(names, n, err);
	free(names);
	return status;
}

/* The rule of a call of any of the tools, or of `only`. Stops where the nfa has failed, which m1_nfa_finish tells. */
static m1_status
write_any_call(m1_nfa *nfa, const m1_json *tools, m1_slice only, int *rule, m1_error *err)
{
	int32_t start = M1_NFA_FAIL;
	bool found = only.len == 0;
	m1_status status = check_distinct(tools, err);
	size_t i = 0;

	*rule = m1_nfa_new_rule(nfa, false);
	m1_json_foreach (tools, definition)
	{
		m1_tool tool;
		int call;

		if (status != M1_OK || nfa->failed || (status = m1_tool_read(definition, i, &tool, err)) != M1_OK)
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
