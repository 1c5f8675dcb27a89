/* tools.c - see tools.h. */
#include "text/tools.h"

static m1_status
bad(m1_error *err, size_t i, const char *why)
{
	m1_fail(err, M1_E_INVALID_ARGUMENT, "tools[%zu] %s", i, why);
	m1_error_hint(err, "tools is an array of {\"name\", \"description\", \"parameters\"}, each by itself or as "
					   "{\"type\": \"function\", \"function\": ...}.");
	return M1_E_INVALID_ARGUMENT;
}

m1_status
m1_tools_parse(m1_slice json, m1_work *work, m1_json_doc *doc, m1_error *err)
{
	m1_status status;

	*doc = (m1_json_doc){0};
	if (json.len > M1_TOOLS_MAX_BYTES)
		return m1_fail(err, M1_E_UNSUPPORTED, "tools has %zu bytes: more than %zu", json.len, M1_TOOLS_MAX_BYTES);
	if ((status = m1_json_parse(json, "tools", work, doc, err)) != M1_OK)
		return status;
	if (m1_json_is(doc->root, M1_JSON_ARRAY))
		return M1_OK;
	m1_json_free(doc);
	*doc = (m1_json_doc){0};
	return m1_fail(err, M1_E_INVALID_ARGUMENT, "tools is not an array");
}

m1_status
m1_tool_read(const m1_json *definition, size_t i, m1_tool *tool, m1_error *err)
{
	static const char *const wrapper[] = {"type", "function", NULL};
	const m1_json *function = m1_json_get(definition, "function");
	const m1_json *type = m1_json_get(definition, "type");
	const char *key;

	if (!m1_json_is(function, M1_JSON_OBJECT))
		function = definition;
	else if ((key = m1_json_other_key(definition, wrapper)) != NULL)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "tools[%zu] has a key that is not known, \"%.60s\"", i, key);
	if (type != NULL && !m1_json_is_text(type, "function"))
		return bad(err, i, "has a type that is not \"function\"");
	tool->definition = function;
	tool->name = m1_json_text(m1_json_get(function, "name"));
	tool->parameters = m1_json_get(function, "parameters");
	if (m1_json_is(tool->parameters, M1_JSON_NULL))
		tool->parameters = NULL;
	return tool->name.len > 0 ? M1_OK : bad(err, i, "has no name");
}
