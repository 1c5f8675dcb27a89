/*
 * test_tool_calls.c - calls of tools as a constraint: which replies it allows, byte by byte, and that whatever way the
 * masks allow ends in calls whose arguments a validator that shares no code with them takes.
 */
#include "constraint_testing.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "json_judge.h"
#include "text/calls.h"
#include "text/reply.h"

#define WEATHER                                                                                                 \
	"{\"name\": \"get_weather\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": " \
	"\"string\", \"maxLength\": 9}, \"days\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 7}}, "       \
	"\"required\": [\"city\"]}}"
#define ORDER                                                                                                        \
	"{\"type\": \"function\", \"function\": {\"name\": \"look \\\"up\\\"\", \"parameters\": {\"type\": \"object\", " \
	"\"properties\": {\"id\": {\"$ref\": \"#/$defs/id\"}, \"how\": {\"enum\": [\"fast\", null]}}, "                  \
	"\"required\": [\"id\", \"how\"], \"$defs\": {\"id\": {\"type\": \"string\", \"pattern\": "                      \
	"\"^[A-Z]-[0-9]{3}$\"}}}}}"
#define NOTHING "{\"name\": \"ping\"}"
#define TOOLS "[" WEATHER ", " ORDER ", " NOTHING "]"
#define OSLO "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n"
#define PING "{\"name\": \"ping\", \"arguments\": {}}\n"

static m1_constraint *
compile(const char *tools, const char *choice, const char *schema)
{
	const m1_constraint_spec spec = {.kind = schema == NULL ? M1_CONSTRAINT_NONE : M1_CONSTRAINT_JSON_SCHEMA,
									 .text = m1_slice_of(schema),
									 .tools = m1_slice_of(tools),
									 .tool_choice = m1_slice_of(choice)};
	m1_constraint *c;
	m1_error err;

	if (m1_constraint_compile(&spec, vocabulary, NULL, &c, &err) != M1_OK)
		fail_msg("%s: %s (%s)", tools, err.message, err.detail);
	return c;
}

typedef enum outcome
{
	REFUSED,
	GOES_ON, /* it is no end */
	MAY_END,
	ENDS, /* nothing may follow */
} outcome;

static outcome
read_reply(m1_constraint *c, const char *reply)
{
	m1_cursor *cursor = m1_cursor_create(c);
	outcome what = REFUSED;
	bool only;
	m1_error err;

	if (m1_cursor_read(cursor, m1_slice_of(reply), &err) == M1_OK)
		what = !m1_cursor_at_end(cursor, &only) ? GOES_ON : only ? ENDS : MAY_END;
	m1_cursor_free(cursor);
	return what;
}

typedef struct reading
{
	const char *reply;
	outcome what;
} reading;

static void
check(m1_constraint *c, const reading *readings, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (read_reply(c, readings[i].reply) != readings[i].what)
			fail_msg("%s: %d", readings[i].reply, (int) read_reply(c, readings[i].reply));
	m1_constraint_release(c);
}

#define CHECK(constraint, readings) check(constraint, readings, sizeof(readings) / sizeof *(readings))
#define THINK "<think>\nI <tool_calls> think </ thin.\n</think>\n\n"

/* Text is free up to the tag; what stands behind it is calls, a line each, and the end. */
static void
test_auto(void **state)
{
	static const reading readings[] = {
		{"", MAY_END},
		{"Hello <b>there</b> <tool_call> <tool_callz> \xc3\xa4\n", MAY_END},
		{"<tool_calls", MAY_END},
		{"<<tool_calls>", GOES_ON},
		{"<tool_calls>\n" OSLO "</tool_calls>", ENDS},
		{"I look it up.\n<tool_calls>\n" OSLO PING OSLO "</tool_calls>", ENDS},
		{THINK "<tool_calls>\n" PING "</tool_calls>", ENDS},
		{THINK "Well. <tool_calls>\n" PING "</tool_calls>", ENDS},
		{" \n" THINK "Well.", MAY_END},
		{"<think>no end", GOES_ON},
		{"<thin", MAY_END},
		{"<thing> <tool_calls>\n", GOES_ON},
		{"<tool_calls>\n</tool_calls>", REFUSED},
		{"<tool_calls>" OSLO, REFUSED},
		{"<tool_calls>\n" OSLO "x", REFUSED},
		{"<tool_calls>\n{\"name\": \"get_weather\", \"arguments\": {}}\n", REFUSED},
		{"<tool_calls>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 8", REFUSED},
		{"<tool_calls>\n{\"name\": \"other\"", REFUSED},
		{"<tool_calls>\n{\"name\": \"look \\\"up\\\"\", \"arguments\": {\"id\": \"B-123\", \"how\": null}}\n", GOES_ON},
		{"a <tool_calls>\n" OSLO "</tool_calls>b", REFUSED},
		{THINK "a <tool_calls>\nb", REFUSED},
		{"   <think>", REFUSED},
		{"Hm. <think>", MAY_END},
	};

	(void) state;
	CHECK(compile(TOOLS, "auto", NULL), readings);
	CHECK(compile(TOOLS, "", NULL), readings);
}

static void
test_none(void **state)
{
	static const reading readings[] = {
		{"Hello <tool_calls", MAY_END},	 {"Hello <tool_calls>", REFUSED}, {"<tool_calls>", REFUSED},
		{THINK "<tool_calls>", REFUSED}, {THINK "No.", MAY_END},
	};

	(void) state;
	CHECK(compile(TOOLS, "none", NULL), readings);
}

static void
test_required(void **state)
{
	static const reading readings[] = {
		{"", GOES_ON},
		{"Hello", REFUSED},
		{"<tool_calls>\n" PING OSLO "</tool_calls>", ENDS},
		{THINK "<tool_calls>\n" PING "</tool_calls>", ENDS},
		{THINK "I", REFUSED},
	};
	static const reading named[] = {
		{"<tool_calls>\n" PING "</tool_calls>", ENDS},
		{"<tool_calls>\n" PING PING, REFUSED},
		{"<tool_calls>\n" OSLO, REFUSED},
		{"<tool_calls>\n" PING OSLO, REFUSED},
	};

	(void) state;
	CHECK(compile(TOOLS, "required", NULL), readings);
	CHECK(compile(TOOLS, "ping", NULL), named);
	CHECK(compile(TOOLS, "{\"type\": \"function\", \"function\": {\"name\": \"ping\"}}", NULL), named);
}

/* Beside a form of the answer, calls are another way to answer. */
static void
test_calls_or_form(void **state)
{
	static const reading either[] = {
		{"7", MAY_END}, {"<tool_calls>\n" PING "</tool_calls>", ENDS}, {"Hello", REFUSED}, {THINK "12", MAY_END}};
	static const reading only[] = {{"7", MAY_END}, {"<tool_calls>", REFUSED}};
	static const reading calls[] = {{"7", REFUSED}, {"<tool_calls>\n", GOES_ON}};
	const char *schema = "{\"type\": \"integer\"}";

	(void) state;
	CHECK(compile(TOOLS, "auto", schema), either);
	CHECK(compile(TOOLS, "none", schema), only);
	CHECK(compile(TOOLS, "required", schema), calls);
}

#define FUNCTION(parameters) "[{\"name\": \"f\", \"parameters\": " parameters "}]"

/* What parameters may be left out, and what they may not be. */
static void
test_parameters(void **state)
{
	static const reading any[] = {{"<tool_calls>\n{\"name\": \"f\", \"arguments\": {\"x\": [1, {}]}}\n", GOES_ON},
								  {"<tool_calls>\n{\"name\": \"f\", \"arguments\": [", REFUSED}};
	static const struct
	{
		const char *tools, *choice;
		m1_status status;
		const char *message;
	} bad[] = {
		{"[{\"name\": \"f\", \"parameters\": {\"type\": \"array\"}}]", "", M1_E_INVALID_ARGUMENT,
		 "not the schema of an"},
		{"[{\"name\": \"f\", \"parameters\": [1]}]", "", M1_E_INVALID_ARGUMENT, "not the schema of an object"},
		{FUNCTION("{\"enum\": [\"a\"]}"), "", M1_E_INVALID_ARGUMENT, "not the schema of an object"},
		{FUNCTION("{\"enum\": [{}, 1]}"), "", M1_E_INVALID_ARGUMENT, "not the schema of an object"},
		{FUNCTION("{\"const\": null}"), "", M1_E_INVALID_ARGUMENT, "not the schema of an object"},
		{FUNCTION("{\"minimum\": 1}"), "", M1_E_INVALID_ARGUMENT, "not the schema of an object"},
		{FUNCTION("{\"properties\": {}, \"minItems\": 1}"), "", M1_E_INVALID_ARGUMENT, "not the schema of an object"},
		{FUNCTION("{\"anyOf\": [{\"type\": \"object\"}, {\"type\": \"null\"}]}"), "", M1_E_INVALID_ARGUMENT,
		 "not the schema of an object"},
		{FUNCTION("{\"type\": [\"object\", \"string\"]}"), "", M1_E_INVALID_ARGUMENT, "not the schema of an object"},
		{FUNCTION("{\"$ref\": \"#/$defs/a\", \"$defs\": {\"a\": {\"anyOf\": [{\"items\": {}}]}}}"), "",
		 M1_E_INVALID_ARGUMENT, "not the schema of an object"},
		{FUNCTION("{\"enum\": []}"), "required", M1_E_INVALID_ARGUMENT, "no answer"},
		{"[" NOTHING ", {\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": {\"not\": {}}}}}]", "",
		 M1_E_UNSUPPORTED, "tools[1].parameters: JSON schema: keyword \"not\""},
		{"[{\"name\": \"f\"}, {\"name\": \"f\"}]", "", M1_E_INVALID_ARGUMENT, "tools[1] has the same name as tools[0]"},
		{TOOLS, "g", M1_E_INVALID_ARGUMENT, "no tool's name"},
		{TOOLS, "{\"type\": \"allowed_tools\"}", M1_E_UNSUPPORTED, "unknown form"},
		{TOOLS, "{\"type\": \"function\", \"function\": {\"name\": \"ping\", \"x\": 1}}", M1_E_UNSUPPORTED,
		 "unknown form"},
		{TOOLS, "{", M1_E_INVALID_ARGUMENT, "tool_choice"},
	};

	(void) state;
	CHECK(compile("[{\"name\": \"f\", \"parameters\": {}}]", "", NULL), any);
	CHECK(compile("[{\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}]", "", NULL), any);
	CHECK(compile(FUNCTION("{\"default\": {}, \"title\": \"t\", \"uniqueItems\": false}"), "", NULL), any);
	CHECK(compile(FUNCTION("{\"anyOf\": [{\"$ref\": \"#/$defs/a\"}, {\"enum\": [{}]}], \"$defs\": {\"a\": "
						   "{\"type\": [\"object\"]}}}"),
				  "", NULL),
		  any);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
	{
		const m1_constraint_spec spec = {.tools = m1_slice_of(bad[i].tools), .tool_choice = m1_slice_of(bad[i].choice)};
		m1_constraint *c;
		m1_error err;

		if (m1_constraint_compile(&spec, vocabulary, NULL, &c, &err) != bad[i].status ||
			strstr(err.message, bad[i].message) == NULL)
			fail_msg("%s: %s", bad[i].tools, err.message);
	}
}

/* As many as a megabyte holds: all names are told apart, and no more of them is written than there may be. */
static void
test_many_tools(void **state)
{
	static const struct
	{
		const char *last;
		m1_status status;
		const char *message;
	} cases[] = {{"1abc", M1_E_INVALID_ARGUMENT, "tools[60000] has the same name as tools[2748]"},
				 {"x", M1_E_UNSUPPORTED, "the constraint is too large"}};

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
	{
		m1_constraint_spec spec = {.kind = M1_CONSTRAINT_NONE};
		const clock_t start = clock();
		m1_buf tools = {0};
		m1_constraint *c;
		char one[40];
		m1_error err;

		for (int k = 0; k < 60000; k++)
		{
			snprintf(one, sizeof one, "%c{\"name\":\"%x\"}", k == 0 ? '[' : ',', 0x1000 + k);
			m1_buf_puts(&tools, one);
		}
		snprintf(one, sizeof one, ",{\"name\":\"%s\"}]", cases[i].last);
		m1_buf_puts(&tools, one);
		spec.tools = (m1_slice){tools.data, tools.len};
		assert_int_equal(m1_constraint_compile(&spec, vocabulary, NULL, &c, &err), cases[i].status);
		if (strstr(err.message, cases[i].message) == NULL)
			fail_msg("%s", err.message);
		/* comparing each with each took minutes */
		assert_true((double) (clock() - start) / CLOCKS_PER_SEC < 10);
		m1_buf_free(&tools);
	}
}

/* ---- random replies ---- */

/* Writes at most n tokens behind the tag, as the masks allow, and reads them as the engine does. */
static void
random_calls(m1_constraint *c, int n, uint64_t *random, m1_buf *calls)
{
	m1_reply *reply = m1_reply_create(tokenizer, NULL, 0);
	m1_cursor *cursor = m1_cursor_create(c);
	m1_ids ids = {0};
	bool only = false;
	m1_error err;

	m1_reply_take_calls(reply);
	assert_ok(
		m1_tokenizer_encode(tokenizer, m1_slice_of("So:\n<tool_calls>\n"), M1_ADDED_NONE, &ids, NULL, NULL, &err));
	for (size_t i = 0; !only; i++)
	{
		int64_t turn = M1_NO_TURN;
		bool done;

		if (i >= ids.len)
		{
			assert_true(n > 0);
			assert_ok(m1_cursor_mask(cursor, n--, &turn, mask, &done, &err));
			assert_true(count_allowed() > 0);
			m1_ids_push(&ids, pick_allowed(random));
		}
		assert_ok(m1_cursor_read(cursor, m1_tokenizer_piece(tokenizer, ids.data[i]), &err));
		assert_true(m1_reply_push(reply, ids.data[i]));
		(void) m1_cursor_at_end(cursor, &only);
	}
	assert_true(m1_reply_finish(reply));
	assert_true(m1_reply_tool_calls(reply, calls));
	assert_int_equal(m1_reply_text(reply, M1_CONTENT).len, 3);
	m1_ids_free(&ids);
	m1_cursor_free(cursor);
	m1_reply_free(reply);
}

/* The definition of the tool with this name. */
static const json_t *
definition_of(const json_t *tools, const char *name)
{
	const json_t *one;
	size_t i;

	json_array_foreach (tools, i, one)
	{
		const json_t *function = json_object_get(one, "function") != NULL ? json_object_get(one, "function") : one;

		if (strcmp(json_string_value(json_object_get(function, "name")), name) == 0)
			return function;
	}
	fail_msg("there is no tool \"%s\"", name);
	return NULL;
}

static void
judge(const json_t *tools, const m1_buf *text)
{
	json_t *calls = json_loadb(text->data, text->len, 0, NULL);
	const json_t *one;
	size_t i;

	assert_true(json_array_size(calls) > 0);
	json_array_foreach (calls, i, one)
	{
		const char *name = json_string_value(json_object_get(one, "name"));
		const json_t *arguments = json_object_get(one, "arguments");
		const json_t *schema;

		if (name == NULL || !json_is_object(arguments))
			fail_msg("%.*s: a call that is none", (int) text->len, text->data);
		schema = json_object_get(definition_of(tools, name), "parameters");
		if (schema == NULL ? json_object_size(arguments) > 0 : !json_judge(schema, schema, arguments))
			fail_msg("%.*s: arguments that the schema does not allow", (int) text->len, text->data);
	}
	json_decref(calls);
}

static void
test_random_calls(void **state)
{
	m1_constraint *c = compile(TOOLS, "auto", NULL);
	json_t *tools = json_loads(TOOLS, 0, NULL);
	uint64_t random = 7;

	(void) state;
	for (int i = 0; i < 300; i++)
	{
		m1_buf calls = {0};

		random_calls(c, 60 + i, &random, &calls);
		judge(tools, &calls);
		m1_buf_free(&calls);
	}
	json_decref(tools);
	m1_constraint_release(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_auto),		  cmocka_unit_test(test_none),		 cmocka_unit_test(test_required),
		cmocka_unit_test(test_calls_or_form), cmocka_unit_test(test_parameters), cmocka_unit_test(test_random_calls),
		cmocka_unit_test(test_many_tools),
	};

	return cmocka_run_group_tests(tests, open_vocabulary, close_vocabulary);
}
