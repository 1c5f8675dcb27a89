/*
 * schema.c - JSON Schemas: what is not refused allows texts that a validator of its own accepts, from whose beginnings
 * there is always a way on.
 */
#include "lib/fuzz.h"

#include "base/utf8.h"
#include "grammar/jsonschema.h"
#include "json_judge.h"
#include "lib/schema_text.h"
#include "lib/walk.h"

#define WALKS 4
#define WORK ((int64_t) 1 << 19)
/* Of compiling: what a byte may ask for is bounded by what all of it may become. */
#define COMPILE_WORK ((size_t) 24 * M1_NFA_MAX_NODES)

static void
check_answer(const json_t *schema, m1_slice schema_text, const m1_buf *answer)
{
	json_error_t where;
	json_t *value = json_loadb(answer->data, answer->len, JSON_DECODE_ANY, &where);

	fuzz_check(m1_utf8_valid((m1_slice){answer->data, answer->len}), "%.*s: \"%s\" is not UTF-8", (int) schema_text.len,
			   schema_text.data, answer->data);
	fuzz_check(value != NULL, "%.*s: \"%s\" is no JSON: %s", (int) schema_text.len, schema_text.data, answer->data,
			   where.text);
	fuzz_check(json_judge(schema, schema, value), "%.*s: \"%s\" is not valid", (int) schema_text.len, schema_text.data,
			   answer->data);
	json_decref(value);
}

static void
walk(const m1_nfa *nfa, m1_slice text, fuzz_input *in)
{
	json_t *schema = json_loadb(text.data, text.len, JSON_DECODE_ANY, NULL);
	m1_automaton *a = m1_automaton_create(nfa);
	m1_buf answer = {0};

	if (a != NULL)
		m1_automaton_allow(a, WORK, M1_NO_TURN);
	for (int i = 0; a != NULL && i < WALKS; i++)
		/* numbers that jansson does not hold are nobody's to judge */
		if (walk_to_an_end(a, in, 20 << i, &answer) && schema != NULL)
			check_answer(schema, text, &answer);
	m1_buf_free(&answer);
	m1_automaton_free(a);
	json_decref(schema);
}

static void
check_schema(m1_slice text, fuzz_input *in)
{
	m1_work work;
	m1_nfa nfa;
	int32_t start;
	m1_error err;
	m1_status status;

	m1_work_init(&work, COMPILE_WORK);
	fuzz_check(m1_nfa_init(&nfa, &work), "out of memory");
	if ((status = m1_jsonschema_compile(&nfa, text, M1_NFA_RETURN, &start, &err)) == M1_OK)
	{
		nfa.top = m1_nfa_new_rule(&nfa, false);
		m1_nfa_set_rule(&nfa, nfa.top, start);
		status = m1_nfa_finish(&nfa, &err);
	}
	fuzz_check(!work.exhausted, "%zu bytes of a schema take more than %zu steps", text.len, (size_t) COMPILE_WORK);
	nfa.work = NULL;
	if (status == M1_OK)
		walk(&nfa, text, in);
	else
		fuzz_check_error(status, &err);
	m1_nfa_free(&nfa);
}

void
fuzz_one(fuzz_input *in)
{
	m1_buf text = {0};

	if (fuzz_below(in, 4) == 3)
	{
		const m1_slice raw = fuzz_rest(in);

		m1_buf_append(&text, raw.data, raw.len);
	}
	else
		text = schema_text_make(in);
	check_schema((m1_slice){text.data, text.len}, in);
	m1_buf_free(&text);
}
