/* jsonfile.c - see jsonfile.h. */
#include "files/jsonfile.h"

#include <stdio.h>

#include "files/regular.h"

m1_status
m1_json_load_object(const char *dir, const char *name, json_t **out, m1_error *err)
{
	json_error_t why;
	FILE *file;
	m1_status status;

	*out = NULL;
	if ((status = m1_regular_fopen(dir, name, &file, err)) != M1_OK)
		return status;
	*out = json_loadf(file, JSON_REJECT_DUPLICATES, &why);
	fclose(file);
	if (*out == NULL)
	{
		m1_fail(err, M1_E_CORRUPT, "\"%s\" is not valid JSON", name);
		m1_error_detail(err, "Line %d, column %d: %s.", why.line, why.column, why.text);
		return M1_E_CORRUPT;
	}
	if (!json_is_object(*out))
	{
		json_decref(*out);
		*out = NULL;
		return m1_fail(err, M1_E_CORRUPT, "\"%s\" is not a JSON object", name);
	}
	return M1_OK;
}
