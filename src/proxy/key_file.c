/* key_file.c - see key_file.h. */
#define _DEFAULT_SOURCE /* explicit_bzero */
#include "proxy/key_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files/regular.h"

static m1_status
read_file(const char *path, m1_buf *out, m1_error *err)
{
	FILE *file;
	m1_status status = m1_regular_fopen(NULL, path, &file, err);

	if (status != M1_OK)
		return status;
	status = m1_read_rest(file, path, out, err);
	fclose(file);
	if (status == M1_OK && m1_buf_cstr(out) == NULL)
		status = m1_fail(err, M1_E_NO_MEMORY, "out of memory for the key");
	return status;
}

/* The only word of the text. */
static m1_status
copy_word(const char *text, char **key, m1_error *err)
{
	const char *begin = text + strspn(text, " \t\r\n");
	const size_t len = strcspn(begin, " \t\r\n");

	if (len == 0 || begin[len + strspn(begin + len, " \t\r\n")] != '\0')
	{
		m1_fail(err, M1_E_INVALID_ARGUMENT, "the file of the servers' key does not hold one key");
		m1_error_hint(err, "See {engine_api_key_file}.");
		return M1_E_INVALID_ARGUMENT;
	}
	if ((*key = strndup(begin, len)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the key");
	return M1_OK;
}

m1_status
m1_key_read(const char *path, char **key, m1_error *err)
{
	m1_buf text = {0};
	m1_status status;

	*key = NULL;
	if (path == NULL || *path == '\0')
		return M1_OK;
	status = read_file(path, &text, err);
	if (status == M1_OK)
		status = copy_word(text.data, key, err);
	if (text.data != NULL)
		explicit_bzero(text.data, text.cap);
	m1_buf_free(&text);
	return status;
}

void
m1_key_free(char *key)
{
	if (key != NULL)
		explicit_bzero(key, strlen(key));
	free(key);
}
