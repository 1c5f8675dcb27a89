/* calls.c - see calls.h. */
#include "text/calls.h"

#include <stdio.h>
#include <string.h>

#include "text/jsontext.h"

/* ---- calls of messages ---- */

static const m1_json *
function_of(const m1_json *call)
{
	const m1_json *function = m1_json_get(call, "function");

	return m1_json_is(function, M1_JSON_OBJECT) ? function : call;
}

m1_slice
m1_call_id(const m1_json *call)
{
	return m1_json_text(m1_json_get(call, "id"));
}

m1_slice
m1_call_name(const m1_json *call)
{
	return m1_json_text(m1_json_get(function_of(call), "name"));
}

/* What was read in place of a call, and why it is none. */
static bool
is_none(const m1_json *call)
{
	return function_of(call) == call && m1_json_is(m1_json_get(call, "error"), M1_JSON_STRING) &&
		   m1_json_is(m1_json_get(call, "text"), M1_JSON_STRING);
}

/* Names the first key that is not understood; it might change what the model sees. */
static m1_status
check_keys(const m1_json *call, const char *where, m1_error *err)
{
	static const char *const wrapped[] = {"id", "type", "index", "function", NULL};
	static const char *const function_keys[] = {"name", "arguments", NULL};
	static const char *const flat[] = {"id", "type", "index", "name", "arguments", NULL};
	static const char *const no_call[] = {"id", "type", "index", "error", "text", NULL};
	const m1_json *function = function_of(call);
	const m1_json *type = m1_json_get(call, "type");
	const m1_json *id = m1_json_get(call, "id");
	const char *key = m1_json_other_key(call, function != call ? wrapped : is_none(call) ? no_call : flat);

	if (key == NULL && function != call)
		key = m1_json_other_key(function, function_keys);
	if (key != NULL)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "%s has a key that is not known, \"%.60s\"", where, key);
	if (type != NULL && !m1_json_is_text(type, "function"))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "%s has a type that is not \"function\"", where);
	if (id != NULL && !m1_json_is(id, M1_JSON_STRING) && !m1_json_is(id, M1_JSON_NULL))
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "%s has an id that is not a text", where);
	return M1_OK;
}

static bool
is_blank(m1_slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if (strchr(" \t\r\n", text.data[i]) == NULL)
			return false;
	return true;
}

/* OpenAI's clients have the arguments as a text of JSON; a blank one stands for none. */
static m1_status
write_arguments(const m1_json *arguments, const char *where, m1_buf *out, m1_error *err)
{
	char what[128];
	m1_json_doc doc = {0};
	m1_status status;

	if (m1_json_is(arguments, M1_JSON_STRING) && is_blank(m1_json_text(arguments)))
	{
		m1_buf_puts(out, "{}");
		return M1_OK;
	}
	snprintf(what, sizeof what, "%s.arguments", where);
	if (m1_json_is(arguments, M1_JSON_STRING))
	{
		if ((status = m1_json_parse(m1_json_text(arguments), what, NULL, &doc, err)) != M1_OK)
			return status;
		arguments = doc.root;
	}
	if (!m1_json_is(arguments, M1_JSON_OBJECT))
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "%s is not an object of JSON", what);
	else
		status = m1_json_write(out, arguments, M1_JSON_AS_GIVEN) ? M1_OK : M1_E_NO_MEMORY;
	m1_json_free(&doc);
	return status;
}

m1_status
m1_call_write(const m1_json *call, const char *where, m1_buf *out, m1_error *err)
{
	m1_status status = check_keys(call, where, err);

	if (status != M1_OK)
		return status;
	if (is_none(call))
	{
		const m1_slice text = m1_json_text(m1_json_get(call, "text"));

		m1_buf_append(out, text.data, text.len);
	}
	else if (m1_call_name(call).len == 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "%s has no name", where);
	else
	{
		m1_buf_puts(out, "{\"name\": ");
		m1_json_write_string(out, m1_call_name(call));
		m1_buf_puts(out, ", \"arguments\": ");
		if ((status = write_arguments(m1_json_get(function_of(call), "arguments"), where, out, err)) != M1_OK)
			return status;
		m1_buf_puts(out, "}");
	}
	m1_buf_puts(out, "\n");
	return out->failed ? m1_fail(err, M1_E_NO_MEMORY, "out of memory for %s", where) : M1_OK;
}

/* ---- calls of replies ---- */

/* Text that is no call may be continued by what follows: it is kept as one piece. */
typedef struct reader
{
	m1_slice text;
	size_t at;
	m1_buf *out;
	bool any;	 /* something was written */
	size_t lost; /* where the text begins that is no call; == lost_end when there is none */
	size_t lost_end;
	char why[160]; /* it is none */
} reader;

static void
begin_item(reader *r)
{
	m1_buf_puts(r->out, r->any ? ", " : "[");
	r->any = true;
}

static void
write_lost(reader *r, m1_slice text, const char *why)
{
	begin_item(r);
	m1_buf_puts(r->out, "{\"error\": ");
	m1_json_write_string(r->out, m1_slice_of(why));
	m1_buf_puts(r->out, ", \"text\": ");
	m1_json_write_string(r->out, text);
	m1_buf_puts(r->out, "}");
}

static void
flush_lost(reader *r)
{
	if (r->lost < r->lost_end)
		write_lost(r, (m1_slice){r->text.data + r->lost, r->lost_end - r->lost}, r->why);
	r->lost = r->lost_end = 0;
}

static void
lose(reader *r, size_t from, size_t to, const char *why)
{
	if (r->lost == r->lost_end)
	{
		r->lost = from;
		snprintf(r->why, sizeof r->why, "%s", why);
	}
	r->lost_end = to;
}

/* Why the value is no call; NULL when it is one. */
static const char *
fault_of(const m1_json *value)
{
	m1_error unused;

	if (!m1_json_is(value, M1_JSON_OBJECT))
		return "it is not an object";
	if (m1_call_name(value).len == 0 || m1_json_get(value, "function") != NULL)
		return "it has no name";
	if (!m1_json_is(m1_json_get(value, "arguments"), M1_JSON_OBJECT))
		return "its arguments are not an object";
	if (check_keys(value, "it", &unused) != M1_OK)
		return "it has keys that a call has not"; /* nor would it be taken back in a history */
	return NULL;
}

/* An item of an array of calls; those that are none are as the array's text has them, but for blanks. */
static void
read_item(reader *r, const m1_json *item)
{
	const char *fault = fault_of(item);
	m1_buf text = {0};

	if (fault == NULL)
	{
		begin_item(r);
		m1_json_write(r->out, item, M1_JSON_AS_GIVEN);
		return;
	}
	r->out->failed |= !m1_json_write(&text, item, M1_JSON_AS_GIVEN);
	write_lost(r, (m1_slice){text.data, text.len}, fault);
	m1_buf_free(&text);
}

static void
read_value(reader *r, size_t from, size_t to)
{
	const m1_slice text = {r->text.data + from, to - from};
	m1_json_doc doc;
	m1_error error;
	const char *fault;

	if (m1_json_parse(text, "it", NULL, &doc, &error) != M1_OK)
	{
		char why[160];

		snprintf(why, sizeof why, "%.60s: %.90s", error.message, error.detail);
		r->out->failed |= error.code == M1_E_NO_MEMORY;
		lose(r, from, to, why);
		return;
	}
	fault = m1_json_size(doc.root) > 0 && m1_json_is(doc.root, M1_JSON_ARRAY) ? NULL : fault_of(doc.root);
	if (fault != NULL)
		lose(r, from, to, fault);
	else
	{
		flush_lost(r);
		if (m1_json_is(doc.root, M1_JSON_OBJECT))
			read_item(r, doc.root);
		m1_json_foreach (doc.root, item)
			if (m1_json_is(doc.root, M1_JSON_ARRAY))
				read_item(r, item);
	}
	m1_json_free(&doc);
}

/*
 * Behind the object or array that begins at `at`; `end` when it does not end before. Line breaks end a string: JSON's
 * have none.
 */
static size_t
skip_value(m1_slice text, size_t at, size_t end)
{
	bool in_string = false;
	size_t depth = 0;

	for (; at < end; at++)
	{
		const char c = text.data[at];

		if (c == '\n' || (in_string && c == '"'))
			in_string = false;
		else if (in_string)
			at += c == '\\' && at + 1 < end && text.data[at + 1] != '\n';
		else if (c == '"')
			in_string = true;
		else if (c == '{' || c == '[')
			depth++;
		else if ((c == '}' || c == ']') && --depth == 0)
			return at + 1;
	}
	return end + 1;
}

static size_t
line_end(m1_slice text, size_t at)
{
	const char *found = memchr(text.data + at, '\n', text.len - at);

	return found != NULL ? (size_t) (found - text.data) : text.len;
}

/* Reads up to `end`; false when an object or array at r->at does not end before it. */
static bool
read_until(reader *r, size_t end)
{
	while (r->at < end)
	{
		const char c = r->text.data[r->at];
		size_t to;

		if (strchr(" \t\r\n,", c) != NULL && c != '\0')
		{
			r->at++;
			continue;
		}
		if (c == '{' || c == '[')
		{
			if ((to = skip_value(r->text, r->at, end)) > end)
				return false;
			read_value(r, r->at, to);
		}
		else
		{
			to = line_end(r->text, r->at) < end ? line_end(r->text, r->at) : end;
			lose(r, r->at, to, "it is not an object");
		}
		r->at = to;
	}
	return true;
}

bool
m1_calls_read(m1_slice text, m1_buf *out)
{
	reader r = {.text = text, .out = out};

	/* One that does not end leaves the lines behind it to be read each by itself. */
	if (!read_until(&r, text.len))
		while (r.at < text.len)
		{
			const size_t end = line_end(text, r.at);

			if (!read_until(&r, end))
				lose(&r, r.at, end, "it does not end");
			r.at = end + 1;
		}
	flush_lost(&r);
	if (r.any)
		m1_buf_puts(out, "]");
	return !out->failed;
}
