/*
 * test_examples.c - JSON lines as sequences to learn from: what each form becomes, which tokens have a weight, and what
 * is refused, with file and line.
 */
#define _GNU_SOURCE /* mkdir */
#include "tokenizer_testing.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "text/chat.h"
#include "train/batches.h"
#include "train/examples.h"

#define SCRATCH TEST_BUILD "/test_examples"
#define FILE_NAME SCRATCH "/data.jsonl"

static m1_example_rules
usual_rules(void)
{
	return (m1_example_rules){
		.tokenizer = tokenizer,
		.vocab_rows = VOCAB,
		.max_tokens = 1000,
		.system = "Be brief.",
		.prompt_weight = 0.0f,
		.answer_weight = 1.0f,
	};
}

/* So many times. */
static bool
goes_on(void *context)
{
	int *left = context;

	return (*left)-- > 0;
}

static m1_status
read_lines(const char *text, const m1_example_rules *rules, m1_examples *e, m1_error *err)
{
	*e = (m1_examples){0};
	test_write_file(SCRATCH, "data.jsonl", text, strlen(text));
	return m1_examples_read(e, FILE_NAME, rules, err);
}

/* The only sequence of a file, which must be right. */
static m1_examples
read_one(const char *text, const m1_example_rules *rules)
{
	m1_examples e;
	m1_error err;

	assert_ok(read_lines(text, rules, &e, &err));
	assert_int_equal(e.n, 1);
	return e;
}

/* The text of the tokens that have that weight, control tokens as "|". */
static m1_buf
text_of_weight(const m1_examples *e, float weight)
{
	m1_buf out = {0};

	for (size_t i = 0; i < e->begins[e->n]; i++)
	{
		const m1_slice piece = m1_tokenizer_piece(tokenizer, e->ids[i]);

		if (e->weights[i] != weight)
			continue;
		if (m1_tokenizer_is_special(tokenizer, e->ids[i]))
			m1_buf_puts(&out, "|");
		else
			m1_buf_append(&out, piece.data, piece.len);
	}
	assert_non_null(m1_buf_cstr(&out));
	return out;
}

static void
assert_weight(const m1_examples *e, float weight, const char *wanted)
{
	m1_buf text = text_of_weight(e, weight);

	assert_string_equal(text.data, wanted);
	m1_buf_free(&text);
}

static void
test_prompt(void **state)
{
	m1_example_rules rules = usual_rules();
	m1_examples e = read_one("{\"prompt\": \"Hello\", \"answer\": \"Hi.\", \"reasoning\": \"A greeting.\"}", &rules);
	const m1_chat chat = {.system = m1_slice_of("Be brief."), .prompt = m1_slice_of("Hello")};
	m1_chat_bounds bounds;
	m1_ids prompt = {0};
	m1_error err;

	(void) state;
	assert_weight(&e, 1.0f, "<think>\nA greeting.\n</think>\n\nHi.|");
	/* what is before is what the model is asked by */
	assert_ok(m1_chat_render(tokenizer, &chat, &prompt, &bounds, &err));
	assert_memory_equal(e.ids, prompt.data, prompt.len * sizeof *e.ids);
	assert_true(e.weights[prompt.len - 1] == 0.0f && e.weights[prompt.len] == 1.0f);
	m1_ids_free(&prompt);
	m1_examples_free(&e);

	e = read_one("{\"prompt\": \"Hello\", \"answer\": \"Hi.\", \"system\": \"\", \"prompt_weight\": 0.5}", &rules);
	assert_weight(&e, 1.0f, "Hi.|");
	assert_weight(&e, 0.5f,
				  "|user name=user\nHello|\n|ai name=assistant\n"); /* but the first, which nothing predicts */
	assert_weight(&e, 0.0f, "|");
	m1_examples_free(&e);

	e = read_one("{\"prompt\": \"Hello\", \"answer\": \"Hi.\", \"reasoning\": \"\", \"answer_weight\": 2}", &rules);
	assert_weight(&e, 2.0f, "<think>\n\n</think>\n\nHi.|");
	m1_examples_free(&e);
}

static void
test_messages(void **state)
{
	static const char line[] =
		"{\"tools\": [{\"name\": \"f\", \"parameters\": {\"x\": 1.50}}], \"messages\": ["
		"{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"one <think>\"}, "
		"{\"role\": \"assistant\", \"content\": \"<think>\\nt\\n</think>\\n\\nfirst\"}, "
		"{\"role\": \"tool\", \"name\": \"f\", \"content\": \"7\"}, "
		"{\"role\": \"assistant\", \"content\": \"\\n second\"}, {\"role\": \"user\", \"content\": \"end\"}]}";
	m1_example_rules rules = usual_rules();
	m1_examples e;

	(void) state;
	rules.prompt_weight = 0.25f;
	e = read_one(line, &rules);
	assert_weight(&e, 1.0f, "<think>\nt\n</think>\n\nfirst|\n second|");
	assert_weight(
		&e, 0.25f,
		"|system ai_setting=assistant\nS|\n|system tool_setting=tools\nYou are provided with these tools:\n"
		"<tools>\n{\"name\": \"f\", \"parameters\": {\"x\": 1.50}}\n</tools>\n\nIf you need to call tools, please "
		"respond with <tool_calls></tool_calls> XML tags, and provide tool-name and json-object of "
		"arguments, following the format below:\n<tool_calls>\n{\"name\": <tool-name>, \"arguments\": "
		"<args-json-object>}\n...\n</tool_calls>|\n|user name=user\none <think>|\n|ai name=assistant\n\n"
		"|tool name=tools\ntool name: f\ntool result: 7\n\n|\n|ai name=assistant\n\n|user name=user\nend|");
	m1_examples_free(&e);
}

static void
test_text_and_ids(void **state)
{
	m1_example_rules rules = usual_rules();
	m1_examples e = read_one("{\"text\": \"Hello <end_of_sentence>\"}", &rules);

	(void) state;
	assert_weight(&e, 1.0f, "Hello <end_of_sentence>|"); /* the text of a control token is text */
	assert_weight(&e, 0.0f, "|");
	m1_examples_free(&e);
	e = read_one("\n{\"ids\": [5, 1599, 0], \"weights\": [3, 0, 0.5]}\n \n", &rules);
	assert_int_equal(e.ids[1], 1599);
	assert_true(e.weights[0] == 0.0f && e.weights[1] == 0.0f && e.weights[2] == 0.5f);
	assert_int_equal(e.counts.lines, 1);
	m1_examples_free(&e);
}

static void
test_refused(void **state)
{
	static const struct
	{
		const char *line, *says;
	} bad[] = {
		{"{\"text\": \"a\"", "it is not valid JSON"},
		{"{\"text\": \"a\"} {}", "it is not valid JSON"},
		{"{\"text\": \"a\", \"text\": \"b\"}", "it is JSON that cannot be used"},
		{"{\"text\": \"\xff\"}", "it is not valid JSON"},
		{"[1, 2]", "it is no object with"},
		{"\"text\"", "it is no object with"},
		{"{}", "it is no object with"},
		{"{\"answer\": \"a\"}", "it is no object with"},
		{"{\"text\": \"a\", \"label\": 1}", "\"label\" is no key of a line with \"text\""},
		{"{\"prompt\": \"a\", \"answer\": \"b\", \"text\": \"c\"}", "\"text\" is no key of a line with \"prompt\""},
		{"{\"messages\": [], \"answer\": \"b\"}", "\"answer\" is no key of a line with \"messages\""},
		{"{\"text\": 1}", "\"text\" is not a text"},
		{"{\"text\": 1e999}", "\"text\" is not a text"},
		{"{\"text\": null}", "\"text\" is not a text"},
		{"{\"prompt\": \"a\"}", "\"prompt\" is there without \"answer\""},
		{"{\"prompt\": \"a\", \"answer\": [\"b\"]}", "\"answer\" is not a text"},
		{"{\"prompt\": \"a\", \"answer\": \"b\", \"reasoning\": 1}", "\"reasoning\" is not a text"},
		{"{\"prompt\": \"a\", \"answer\": \"b\", \"system\": {}}", "\"system\" is not a text"},
		{"{\"prompt\": \"a\", \"answer\": \"b\", \"tools\": 1}", "\"tools\" is not an array"},
		{"{\"prompt\": \"a\", \"answer\": \"b\", \"prompt_weight\": -1}", "\"prompt_weight\" is not a number"},
		{"{\"prompt\": \"a\", \"answer\": \"b\", \"answer_weight\": 1e400}", "\"answer_weight\" is not a number"},
		{"{\"prompt\": \"a\", \"answer\": \"b\", \"answer_weight\": \"1\"}", "\"answer_weight\" is not a number"},
		{"{\"prompt\": \"a\", \"answer\": \"b\", \"answer_weight\": 0}", "there is nothing to learn"},
		{"{\"messages\": 1}", "\"messages\" is not an array"},
		{"{\"messages\": []}", "messages holds no message from a user"},
		{"{\"messages\": [1]}", "messages[0] has a role"},
		{"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "no message of the assistant"},
		{"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\"}]}",
		 "messages[1] has no content"},
		{"{\"ids\": {}}", "\"ids\" is not an array"},
		{"{\"ids\": []}", "there is nothing to learn"},
		{"{\"ids\": [7]}", "there is nothing to learn"},
		{"{\"ids\": [1, 1600]}", "token id 1600 is outside the vocabulary"},
		{"{\"ids\": [1, -1]}", "token id -1 is outside the vocabulary"},
		{"{\"ids\": [1, 4294967296]}", "token id 4294967296 is outside the vocabulary"},
		{"{\"ids\": [1, 1.0]}", "no token id, as number 2"},
		{"{\"ids\": [1, 1e99]}", "no token id, as number 2"},
		{"{\"ids\": [1, 2], \"weights\": [1]}", "not an array of 2 numbers"},
		{"{\"ids\": [1, 2], \"weights\": [1, null]}", "\"weights\" is not a number"},
		{"{\"ids\": [1, 2], \"weights\": [1, 0]}", "there is nothing to learn"},
	};
	m1_example_rules rules = usual_rules();
	m1_examples e;
	m1_error err;

	(void) state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
	{
		char text[1000];

		snprintf(text, sizeof text, "{\"text\": \"fine\"}\n\n%s\n", bad[i].line);
		if (read_lines(text, &rules, &e, &err) != M1_E_INVALID_ARGUMENT || strstr(err.message, bad[i].says) == NULL ||
			strstr(err.message, FILE_NAME ", line 3: ") == NULL)
			fail_msg("%s: \"%s\"", bad[i].line, err.message);
		m1_examples_free(&e);
	}
	rules.tokenizer = NULL;
	assert_int_equal(read_lines("{\"text\": \"a\"}", &rules, &e, &err), M1_E_INVALID_ARGUMENT);
	assert_non_null(strstr(err.message, "\"text\" needs a tokenizer"));
	m1_examples_free(&e);
	rules.goes_on = goes_on;
	rules.goes_on_context = &(int){1};
	assert_int_equal(read_lines("{\"ids\": [1, 2]}\n\n", &rules, &e, &err), M1_E_CANCELLED);
	m1_examples_free(&e);
	rules.goes_on = NULL;
	assert_int_equal(m1_examples_read(&e, SCRATCH "/none", &rules, &err), M1_E_NOT_FOUND);
	assert_int_equal(m1_examples_read(&e, SCRATCH, &rules, &err), M1_E_IO);
}

static void
test_too_long(void **state)
{
	static const char lines[] =
		"{\"ids\": [1, 2, 3]}\n{\"ids\": [1, 2, 3, 4, 5, 6, 7], \"weights\": [1,1,1,0,0,0,1]}\n";
	static const char chat[] = "{\"prompt\": \"a\", \"answer\": \"b\"}\n";
	m1_example_rules rules = usual_rules();
	m1_examples e;
	m1_error err;

	(void) state;
	rules.max_tokens = 3;
	assert_int_equal(read_lines(lines, &rules, &e, &err), M1_E_CONTEXT_OVERFLOW);
	assert_non_null(strstr(err.message, "line 2: 7 tokens are longer than the context"));
	m1_examples_free(&e);

	rules.too_long = M1_LONG_SKIP;
	assert_ok(read_lines(lines, &rules, &e, &err));
	assert_int_equal(e.n, 1);
	assert_int_equal(e.counts.skipped, 1);
	m1_examples_free(&e);

	/* of the three pieces, the second has nothing to learn, and the third no second token */
	rules.too_long = M1_LONG_SPLIT;
	assert_ok(read_lines(lines, &rules, &e, &err));
	assert_int_equal(e.n, 2);
	assert_int_equal(e.counts.split, 1);
	assert_int_equal(e.ids[3], 1);
	assert_int_equal(e.begins[2], 6);
	m1_examples_free(&e);
	assert_int_equal(read_lines(chat, &rules, &e, &err), M1_E_CONTEXT_OVERFLOW);
	m1_examples_free(&e);
}

/* ---- batches ---- */

/* Twenty sequences, the i-th of 2 + i % 4 tokens, all of which are i. */
static m1_examples
twenty(void)
{
	m1_example_rules rules = usual_rules();
	m1_buf text = {0};
	m1_examples e;
	m1_error err;

	for (int i = 0; i < 20; i++)
	{
		m1_buf_puts(&text, "{\"ids\": [");
		for (int k = 0; k < 2 + i % 4; k++)
		{
			char id[16];

			snprintf(id, sizeof id, "%s%d", k > 0 ? ", " : "", i);
			m1_buf_puts(&text, id);
		}
		m1_buf_puts(&text, "]}\n");
	}
	assert_ok(read_lines(m1_buf_cstr(&text), &rules, &e, &err));
	m1_buf_free(&text);
	return e;
}

static size_t
tokens_of(const m1_examples *e, const uint32_t *numbers, size_t n)
{
	size_t tokens = 0;

	for (size_t i = 0; i < n; i++)
		tokens += e->begins[numbers[i] + 1] - e->begins[numbers[i]];
	return tokens;
}

static void
test_epochs(void **state)
{
	m1_examples e = twenty();
	m1_batches *b;
	m1_error err;
	size_t n_held_out;
	const uint32_t *held_out;
	uint64_t steps = 0;
	uint64_t counted;

	(void) state;
	assert_ok(m1_batches_create(&e, 0.1, 10, 5, &b, &err));
	held_out = m1_batches_held_out(b, &n_held_out);
	assert_int_equal(n_held_out, 2);
	for (int epoch = 0; epoch < 3; epoch++)
	{
		int seen[20] = {0};
		size_t taken = 0;

		for (; taken < 18; steps++)
		{
			size_t n;
			const uint32_t *numbers = m1_batches_next(b, &n);

			assert_true(n > 0 && tokens_of(&e, numbers, n) <= 10);
			for (size_t i = 0; i < n; i++)
				seen[numbers[i]]++;
			taken += n;
		}
		for (int i = 0; i < 20; i++)
			assert_int_equal(seen[i], (uint32_t) i != held_out[0] && (uint32_t) i != held_out[1]);
	}
	assert_ok(m1_batches_steps(b, 3, goes_on, &(int){3}, &counted, &err));
	assert_int_equal(counted, steps);
	assert_int_equal(m1_batches_steps(b, INT_MAX, goes_on, &(int){3}, &counted, &err), M1_E_CANCELLED);
	m1_batches_free(b);
	m1_examples_free(&e);
}

static void
test_going_on(void **state)
{
	m1_examples e = twenty();
	m1_batches *all, *rest, *other;
	uint64_t counted;
	m1_error err;
	bool differs = false;

	(void) state;
	assert_ok(m1_batches_create(&e, 0.0, 7, 5, &all, &err));
	assert_ok(m1_batches_create(&e, 0.0, 7, 5, &rest, &err));
	assert_ok(m1_batches_create(&e, 0.0, 7, 6, &other, &err));
	for (int step = 0; step < 40; step++)
	{
		const m1_batch_place place = m1_batches_place(all);
		size_t n, m, k;
		const uint32_t *a = m1_batches_next(all, &n);
		const uint32_t *c = m1_batches_next(other, &k);
		const uint32_t *b;

		assert_ok(m1_batches_go(rest, place, &err)); /* from any place, the same batch follows */
		b = m1_batches_next(rest, &m);
		assert_int_equal(n, m);
		assert_memory_equal(a, b, n * sizeof *a);
		differs |= n != k || memcmp(a, c, n * sizeof *a) != 0;
	}
	assert_true(differs);
	assert_int_equal(m1_batches_go(rest, (m1_batch_place){0, 21}, &err), M1_E_CORRUPT);
	m1_batches_free(all);
	m1_batches_free(rest);
	m1_batches_free(other);

	/* longer than a batch: a batch of its own */
	assert_ok(m1_batches_create(&e, 0.0, 1, 5, &all, &err));
	assert_ok(m1_batches_steps(all, 1, goes_on, &(int){1}, &counted, &err));
	assert_int_equal(counted, 20);
	m1_batches_free(all);
	assert_int_equal(m1_batches_create(&(m1_examples){0}, 0.0, 7, 5, &all, &err), M1_E_INVALID_ARGUMENT);
	m1_examples_free(&e);
}

static void
test_digest(void **state)
{
	m1_examples e = twenty();
	const uint64_t digest = m1_examples_digest(&e);

	(void) state;
	e.weights[1] = 0.5f;
	assert_true(m1_examples_digest(&e) != digest);
	e.weights[1] = 1.0f;
	assert_true(m1_examples_digest(&e) == digest);
	e.ids[0] = 3;
	assert_true(m1_examples_digest(&e) != digest);
	m1_examples_free(&e);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prompt),	 cmocka_unit_test(test_messages), cmocka_unit_test(test_text_and_ids),
		cmocka_unit_test(test_refused),	 cmocka_unit_test(test_too_long), cmocka_unit_test(test_epochs),
		cmocka_unit_test(test_going_on), cmocka_unit_test(test_digest),
	};

	return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
