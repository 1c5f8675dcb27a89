/* jsonfile.c - see jsonfile.h. */
#include "files/jsonfile.h"

#include <stdio.h>
#include <string.h>

#include "files/regular.h"

m1_status
m1_json_refuse_nul(const void *data, size_t len, const char *name, m1_error *err)
{
	const char *nul = len == 0 ? NULL : memchr(data, '\0', len);

	if (nul == NULL)
		return M1_OK;
	m1_fail(err, M1_E_CORRUPT, "\"%s\" is not valid JSON", name);
	m1_error_detail(err, "At byte %td: a NUL.", nul - (const char *) data);
	return M1_E_CORRUPT;
}

static m1_status
parse(const m1_buf *text, const char *name, json_t **out, m1_error *err)
{
	json_error_t why;

	*out = json_loadb(text->len == 0 ? "" : text->data, text->len, JSON_REJECT_DUPLICATES, &why);
	if (*out == NULL)
	{
		m1_fail(err, M1_E_CORRUPT, "\"%s\" is not valid JSON", name);
		m1_error_detail(err, "Line %d, column %d: %s.", why.line, why.column, why.text);
		return M1_E_CORRUPT;
	}
	if (json_is_object(*out))
		return M1_OK;
	json_decref(*out);
	*out = NULL;
	return m1_fail(err, M1_E_CORRUPT, "\"%s\" is not a JSON object", name);
}

m1_status
m1_json_load_object(const char *dir, const char *name, json_t **out, m1_error *err)
{
	m1_buf text = {0};
	FILE *file;
	m1_status status;

	*out = NULL;
	if ((status = m1_regular_fopen(dir, name, &file, err)) != M1_OK)
		return status;
	status = m1_read_rest(file, name, &text, err);
	fclose(file);
	if (status == M1_OK)
		status = m1_json_refuse_nul(text.data, text.len, name, err);
	if (status == M1_OK)
		status = parse(&text, name, out, err);
	m1_buf_free(&text);
	return status;
}
