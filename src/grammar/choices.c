/* choices.c - see choices.h. */
#define _DEFAULT_SOURCE /* explicit_bzero, strdup */
#include "grammar/choices.h"

#include <stdlib.h>
#include <string.h>

#include "base/sort.h"
#include "text/jsonparse.h"

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static m1_status
check_distinct(char *const *choices, size_t n, m1_error *err)
{
	char **sorted = malloc(n * sizeof *sorted);
	m1_status status = M1_OK;

	if (sorted == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
	memcpy(sorted, choices, n * sizeof *sorted);
	m1_sort(sorted, n, sizeof *sorted, by_text);
	for (size_t i = 1; i < n && status == M1_OK; i++)
		if (strcmp(sorted[i - 1], sorted[i]) == 0)
			status = m1_fail(err, M1_E_INVALID_ARGUMENT, "choice \"%.100s\" is given twice", sorted[i]);
	free(sorted);
	return status;
}

static m1_status
copy_choices(const m1_json *array, char **choices, m1_error *err)
{
	size_t i = 0;

	m1_json_foreach (array, one)
	{
		if (!m1_json_is(one, M1_JSON_STRING))
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "choice %zu is not a string", i + 1);
		if (one->n == 0)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "choice %zu is empty", i + 1);
		if ((choices[i++] = strdup(one->text)) == NULL)
			return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
	}
	return check_distinct(choices, i, err);
}

m1_status
m1_choices_parse(m1_slice text, char ***choices, size_t *n, m1_error *err)
{
	m1_json_doc doc;
	m1_error why;
	m1_status status;

	*choices = NULL;
	*n = 0;
	status = m1_json_parse(text, "the list of choices", NULL, &doc, &why);
	*n = m1_json_is(doc.root, M1_JSON_ARRAY) ? m1_json_size(doc.root) : 0;
	if (status != M1_OK && status != M1_E_INVALID_ARGUMENT)
		status = m1_fail(err, status, "%s", why.message);
	else if (m1_json_is(doc.root, M1_JSON_ARRAY) && *n == 0)
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "there are no choices");
	else if (*n == 0)
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "the choices are not a JSON array of strings");
		m1_error_detail(err, "%s", status != M1_OK ? why.detail : "");
		status = M1_E_INVALID_ARGUMENT;
	}
	else if (*n > M1_MAX_CHOICES)
		status = m1_fail(err, M1_E_INVALID_ARGUMENT, "there are more than %d choices", M1_MAX_CHOICES);
	else if ((*choices = calloc(*n, sizeof **choices)) == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the choices");
	else if ((status = copy_choices(doc.root, *choices, err)) != M1_OK)
	{
		m1_choices_free(*choices, *n);
		*choices = NULL;
	}
	m1_json_free(&doc);
	return status;
}

void
m1_choices_free(char **choices, size_t n)
{
	for (size_t i = 0; i < n && choices != NULL; i++)
		if (choices[i] != NULL)
		{
			explicit_bzero(choices[i], strlen(choices[i]));
			free(choices[i]);
		}
	free(choices);
}

m1_status
m1_choices_compile(m1_nfa *nfa, m1_slice text, int32_t next, int32_t *start, int *longest, m1_error *err)
{
	char **choices;
	size_t n;
	m1_status status = m1_choices_parse(text, &choices, &n, err);

	*start = M1_NFA_FAIL;
	*longest = 0;
	if (status != M1_OK)
		return status;
	for (size_t i = n; i-- > 0;)
	{
		const int len = (int) strlen(choices[i]);

		*start = m1_nfa_split(nfa, m1_nfa_literal(nfa, m1_slice_of(choices[i]), next), *start);
		*longest = len > *longest ? len : *longest;
	}
	m1_choices_free(choices, n);
	return M1_OK;
}
