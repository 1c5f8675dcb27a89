/*
 * test_call_pieces.c - tool calls while they are written, however their text is cut: which begin, their arguments, and
 * what is left to the strict reader.
 */
#include <string.h>

#include "gateway/call_pieces.h"
#include "text/calls.h"

#include "testing.h"

/* "name(arguments)" of each call, as it was told. */
typedef struct told
{
	m1_buf text;
	int calls, pieces;
} told;

static void
on_begin(void *context, int index, m1_slice name)
{
	told *t = context;

	assert_int_equal(index, t->calls++);
	m1_buf_puts(&t->text, index > 0 ? " " : "");
	m1_buf_append(&t->text, name.data, name.len);
	m1_buf_puts(&t->text, ":");
}

static void
on_arguments(void *context, int index, m1_slice piece)
{
	told *t = context;

	assert_int_equal(index, t->calls - 1);
	assert_true(piece.len > 0);
	m1_buf_append(&t->text, piece.data, piece.len);
	t->pieces++;
}

static const gw_call_listener listener = {on_begin, on_arguments};

/* What is told of the text in pieces of so many bytes; whether the strict reader agrees. */
static bool
tell(const char *text, size_t step, told *t)
{
	const size_t n = strlen(text);
	gw_call_pieces p = {0};
	m1_buf calls = {0};
	m1_json_doc doc = {0};
	m1_error err;
	bool agree;

	for (size_t i = 0; i < n; i += step)
		gw_call_pieces_read(&p, (m1_slice){text + i, n - i < step ? n - i : step}, &listener, t);
	assert_true(m1_calls_read(m1_slice_of(text), &calls));
	if (calls.len > 0)
		assert_ok(m1_json_parse((m1_slice){calls.data, calls.len}, "calls", NULL, &doc, &err));
	agree = gw_call_pieces_agree(&p, doc.root);
	m1_json_free(&doc);
	m1_buf_free(&calls);
	gw_call_pieces_free(&p);
	return agree;
}

static void
check(const char *text, const char *want, bool agree)
{
	for (size_t step = 1; step <= strlen(text); step++)
	{
		told t = {0};

		assert_int_equal(tell(text, step, &t), agree);
		m1_buf_append(&t.text, "", 1);
		assert_string_equal(t.text.data, want);
		m1_buf_free(&t.text);
	}
}

#define F "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"

/* What constraints hold replies to. */
static void
test_calls(void **state)
{
	(void) state;
	check("\n" F "\n", "f:{\"x\": 1}", true);
	check("\n" F "\n" F, "f:{\"x\": 1} f:{\"x\": 1}", true);
	check("{\"name\":\"g\",\"arguments\":{}}", "g:{}", true);
	check("{\"arguments\":{}}", "", true);
	check("{\"name\": \"a\\\"{\\u00e9\", \"arguments\": {\"k\": [{}, \"}\\\"]\\\\\", {\"m\": {}}], \"l\": 1.50}}",
		  "a\"{\xC3\xA9:{\"k\": [{}, \"}\\\"]\\\\\", {\"m\": {}}], \"l\": 1.50}", true);
	check("", "", true);
}

/* A call is told as soon as its name is certain, and its arguments as they come. */
static void
test_pieces(void **state)
{
	told t = {0};

	(void) state;
	assert_true(tell("{\"name\": \"f\", \"arguments\": {\"city\": \"Oslo\"}}", 1, &t));
	assert_int_equal(t.pieces, (int) strlen("{\"city\": \"Oslo\"}"));
	m1_buf_free(&t.text);
}

/* Other forms are told at the end, by the strict reader, and what was told until then stands. */
static void
test_other_forms(void **state)
{
	(void) state;
	check("[" F "]", "", true);
	check("not json", "", true);
	check("{\"arguments\": {}, \"name\": \"f\"}", "", true);
	check("{\"name\": \"\", \"arguments\": {}}", "", true);
	check("{\"name\": \"f\", \"arguments\": [1]}", "", true);
	check("{\"name\": \"f\", \"id\": 1, \"arguments\": {}}", "", true);
	check(F ", " F, "f:{\"x\": 1}", true);
	check(F "\nnot json\n" F, "f:{\"x\": 1}", true);
}

/* What was told is no call. */
static void
test_misread(void **state)
{
	(void) state;
	check("{\"name\": \"f\", \"arguments\": {\"x\": 1, \"x\": 2}}", "f:{\"x\": 1, \"x\": 2}", false);
	check("{\"name\": \"f\", \"arguments\": {\"x\": ", "f:{\"x\": ", false);
	check("{\"name\": \"f\", \"arguments\": {\"x\": 1}", "f:{\"x\": 1}", false);
	check(F "\n{\"name\": \"f\", \"arguments\": {\"x\": 01}}", "f:{\"x\": 1} f:{\"x\": 01}", false);
	check("{\"name\": \"f\", \"arguments\": {\"x\": 1], \"y\": {}}", "f:{\"x\": 1]", false);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_other_forms),
		cmocka_unit_test(test_misread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
