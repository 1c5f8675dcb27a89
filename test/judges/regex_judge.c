/* regex_judge.c - see regex_judge.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "regex_judge.h"

#include <pcre2.h>

#define MOST_STEPS 200000

static regex_verdict
match(const pcre2_code *code, m1_slice text)
{
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);
	pcre2_match_context *context = pcre2_match_context_create(NULL);
	int n;

	pcre2_set_match_limit(context, MOST_STEPS);
	n = pcre2_match(code, (PCRE2_SPTR) (text.len > 0 ? text.data : ""), text.len, 0, 0, data, context);
	pcre2_match_context_free(context);
	pcre2_match_data_free(data);
	if (n == PCRE2_ERROR_NOMATCH)
		return REGEX_DIFFERS;
	return n >= 0 ? REGEX_MATCHES : REGEX_UNKNOWN;
}

regex_verdict
regex_judge(m1_slice pattern, m1_slice text, bool part)
{
	m1_buf whole = {0};
	pcre2_code *code;
	PCRE2_SIZE at;
	int error;
	regex_verdict verdict = REGEX_UNKNOWN;

	m1_buf_puts(&whole, part ? "(?:" : "\\A(?:");
	m1_buf_append(&whole, pattern.data, pattern.len);
	m1_buf_puts(&whole, part ? ")" : ")\\z");
	/* PCRE2 10.42 takes (?:x|.*){0}a for anchored, by a part that is never there */
	code = pcre2_compile((PCRE2_SPTR) whole.data, whole.len, PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_NO_DOTSTAR_ANCHOR,
						 &error, &at, NULL);
	if (code != NULL)
		verdict = match(code, text);
	pcre2_code_free(code);
	m1_buf_free(&whole);
	return verdict;
}
