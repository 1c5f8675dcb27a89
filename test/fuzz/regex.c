/* regex.c - regular expressions: the texts that are allowed are those that PCRE2 matches. */
#include "lib/fuzz.h"

#include "base/utf8.h"
#include "grammar/regex.h"
#include "lib/regex_text.h"
#include "lib/walk.h"
#include "regex_judge.h"

#define WALKS 4
#define TEXTS 4
#define TEXT_CHARACTERS 12
#define WORK ((int64_t) 1 << 19)

/* Texts that the expression may or may not match. */
static void
check_texts(m1_automaton *a, const regex_text *r, bool part, fuzz_input *in)
{
	const m1_slice pattern = {r->text.data, r->text.len};
	m1_buf text = {0};

	for (int i = 0; i < TEXTS; i++)
	{
		int32_t state = M1_AUTOMATON_START;
		regex_verdict verdict;
		bool allowed;

		text.len = 0;
		for (uint32_t n = fuzz_random_below(in, TEXT_CHARACTERS); n > 0; n--)
			m1_buf_puts(&text, regex_text_character(in));
		for (size_t k = 0; k < text.len && state >= 0; k++)
			state = m1_automaton_step(a, state, (uint8_t) text.data[k]);
		if (state == M1_AUTOMATON_TOO_LARGE)
			break;
		allowed = state >= 0 && m1_automaton_state(a, state)->accepting;
		verdict = regex_judge(pattern, (m1_slice){text.data, text.len}, part);
		fuzz_check(verdict != REGEX_DIFFERS || !allowed, "%s allows \"%s\"", r->text.data, m1_buf_cstr(&text));
		fuzz_check(verdict != REGEX_MATCHES || allowed || !r->exact, "%s does not allow \"%s\"", r->text.data,
				   m1_buf_cstr(&text));
	}
	m1_buf_free(&text);
}

static void
check_walks(m1_automaton *a, m1_slice pattern, bool judged, bool part, fuzz_input *in)
{
	m1_buf text = {0};

	for (int i = 0; i < WALKS; i++)
	{
		if (!walk_to_an_end(a, in, 8 << i, &text))
			continue;
		fuzz_check(m1_utf8_valid((m1_slice){text.data, text.len}), "%.*s allows what is not UTF-8", (int) pattern.len,
				   pattern.data);
		fuzz_check(!judged || regex_judge(pattern, (m1_slice){text.data, text.len}, part) != REGEX_DIFFERS,
				   "%.*s allows \"%s\"", (int) pattern.len, pattern.data, text.data);
	}
	m1_buf_free(&text);
}

static void
check_pattern(const regex_text *r, bool made, bool part, fuzz_input *in)
{
	const m1_slice pattern = {r->text.data, r->text.len};
	m1_automaton *a = NULL;
	m1_nfa nfa;
	int32_t start;
	m1_error err;
	m1_status status;

	fuzz_check(m1_nfa_init(&nfa, NULL), "out of memory");
	status = m1_regex_compile(&nfa, pattern, part ? M1_REGEX_SEARCH : M1_REGEX_WHOLE, m1_nfa_characters, M1_NFA_RETURN,
							  &start, &err);
	if (status == M1_OK)
	{
		nfa.top = m1_nfa_new_rule(&nfa, false);
		m1_nfa_set_rule(&nfa, nfa.top, start);
		status = m1_nfa_finish(&nfa, &err);
	}
	if (status != M1_OK)
		fuzz_check_error(status, &err);
	else if ((a = m1_automaton_create(&nfa)) != NULL)
	{
		m1_automaton_allow(a, WORK, M1_NO_TURN);
		check_walks(a, pattern, made, part, in);
		if (made)
			check_texts(a, r, part, in);
	}
	m1_automaton_free(a);
	m1_nfa_free(&nfa);
}

void
fuzz_one(fuzz_input *in)
{
	const uint32_t kind = fuzz_below(in, 8);
	const bool made = kind < 6;
	regex_text r = {0};

	if (made)
		r = regex_text_make(in, 3);
	else
	{
		/* anything at all: other dialects read it in other ways, so nobody judges what it allows */
		const m1_slice raw = fuzz_rest(in);

		m1_buf_append(&r.text, raw.data, raw.len);
	}
	check_pattern(&r, made, kind % 2 == 1, in);
	m1_buf_free(&r.text);
}
