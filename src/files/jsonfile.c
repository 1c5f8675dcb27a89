/* jsonfile.c - see jsonfile.h. */
#define _GNU_SOURCE /* PATH_MAX, fopen's "e" */
#include "files/jsonfile.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

m1_status
m1_json_load_object(const char *dir, const char *name, json_t **out, m1_error *err)
{
	char path[PATH_MAX];
	json_error_t why;
	FILE *file;

	*out = NULL;
	if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int) sizeof path)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "the path of the checkpoint is too long");
	if ((file = fopen(path, "rbe")) == NULL)
	{
		m1_status code = errno == ENOENT || errno == ENOTDIR ? M1_E_NOT_FOUND : M1_E_IO;

		m1_fail(err, code, "could not open \"%s\": %s", name, strerror(errno));
		m1_error_detail(err, "The folder is \"%s\".", dir);
		return code;
	}
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
