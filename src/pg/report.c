/*
 * report.c
 *	  The one place that turns an m1_error into a PostgreSQL error.
 *
 *	  invalid_argument	22023  invalid_parameter_value
 *	  unsupported		0A000  feature_not_supported
 *	  not_found			58P01  undefined_file
 *	  io				58030  io_error
 *	  corrupt			XX001  data_corrupted
 *	  no_memory			53200  out_of_memory
 *	  context_overflow	54000  program_limit_exceeded
 *	  overloaded		53400  configuration_limit_exceeded
 *	  cancelled			57014  query_canceled (as for statement_timeout, a handler
 *	  timeout			57014    for OTHERS does not swallow it)
 *	  unavailable		57P03  cannot_connect_now: try again later
 *	  device			58000  system_error
 *	  internal			XX000  internal_error
 */
#include "pg/report.h"
#include "pg/settings.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "wire/message.h"

static int
sqlstate_of(m1_status code)
{
	switch (code)
	{
		case M1_E_INVALID_ARGUMENT:
			return ERRCODE_INVALID_PARAMETER_VALUE;
		case M1_E_UNSUPPORTED:
			return ERRCODE_FEATURE_NOT_SUPPORTED;
		case M1_E_NOT_FOUND:
			return ERRCODE_UNDEFINED_FILE;
		case M1_E_IO:
			return ERRCODE_IO_ERROR;
		case M1_E_CORRUPT:
			return ERRCODE_DATA_CORRUPTED;
		case M1_E_NO_MEMORY:
			return ERRCODE_OUT_OF_MEMORY;
		case M1_E_CONTEXT_OVERFLOW:
			return ERRCODE_PROGRAM_LIMIT_EXCEEDED;
		case M1_E_OVERLOADED:
		case M1_E_OVER_QUOTA:
			return ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		case M1_E_EXISTS:
			return ERRCODE_DUPLICATE_OBJECT;
		case M1_E_CANCELLED:
		case M1_E_TIMEOUT:
			return ERRCODE_QUERY_CANCELED;
		case M1_E_UNAVAILABLE:
			return ERRCODE_CANNOT_CONNECT_NOW;
		case M1_E_DEVICE:
			return ERRCODE_SYSTEM_ERROR;
		default:
			return ERRCODE_INTERNAL_ERROR;
	}
}

/* What is in UTF-8, in the encoding of the database; NULL when that does not have it all, or it is not UTF-8. */
static char *
convert_from_utf8(const char *s)
{
	const int	encoding = GetDatabaseEncoding();
	const int	len = (int) strlen(s);
	Oid			proc;
	int			size;
	char	   *converted;

	if (!pg_verify_mbstr(PG_UTF8, s, len, true))
		return NULL;
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return pstrdup(s);
	if (!IsTransactionState() || !OidIsValid(proc = FindDefaultConversionProc(PG_UTF8, encoding)))
		return NULL;
	size = (len + 1) * MAX_CONVERSION_GROWTH + 1;
	converted = palloc(size);
	return pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding, (unsigned char *) unconstify(char *, s), len,
										 (unsigned char *) converted, size, true) == len ? converted : NULL;
}

/*
 * The engine's texts are in UTF-8, or quote what a file holds; those of this
 * process are in the encoding of the database. Which is which is not told: what
 * is UTF-8, and not ASCII, was hardly meant as something else.
 */
char *
m1pg_displayable(const char *s)
{
	char	   *copy = convert_from_utf8(s);

	if (copy != NULL)
		return copy;
	copy = pstrdup(s);
	if (!IsTransactionState() || pg_verify_mbstr(PG_UTF8, s, (int) strlen(s), true) ||
		!pg_verifymbstr(copy, strlen(copy), true))
		for (char *c = copy; *c != '\0'; c++)
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
	return copy;
}

const char *
m1pg_own_message(const char *message)
{
	static const char name[] = "minimax_m1: ";

	return message != NULL && strncmp(message, name, strlen(name)) == 0 ? message + strlen(name) : NULL;
}

void
m1pg_bad_argument(const char *message, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("minimax_m1: %s", message), detail != NULL ? errdetail("%s", detail) : 0));
	pg_unreachable();
}

void
m1pg_report(const m1_error *error)
{
	ereport(ERROR,
			(errcode(sqlstate_of(error->code)),
			 errmsg("minimax_m1: %s", m1pg_displayable(error->message)),
			 error->detail[0] != '\0' ? errdetail("%s", m1pg_displayable(error->detail)) : 0,
			 error->hint[0] != '\0' ? errhint("%s", m1pg_displayable(error->hint)) : 0));
	pg_unreachable();
}

void
m1pg_report_or_null(const m1_error *error)
{
	if (m1pg_on_error == M1_ON_ERROR_RAISE || error->code == M1_E_CANCELLED)
		m1pg_report(error);
	ereport(DEBUG1,
			(errmsg_internal("minimax_m1: the result is NULL because of an error: %s",
							 m1pg_displayable(error->message))));
}

/* For m1_error_spell_settings. */
static bool
spell_setting(const char *key, char *out, size_t size)
{
	snprintf(out, size, "minimax_m1.%s", key);
	return GetConfigOption(out, true, false) != NULL;
}

/* Whatever comes from the engine comes in by here, so nobody is shown a hint's key. */
void
m1pg_read_failure(const char *payload, Size len, m1_error *error)
{
	m1w_failure failure;

	if (m1w_decode_failure(payload, len, &failure, error) == M1_OK)
		m1w_failure_to_error(&failure, error);
	m1_error_spell_settings(error, spell_setting);
}

text *
m1pg_error_text(const m1_error *error)
{
	if (error->detail[0] == '\0')
		return cstring_to_text(m1pg_displayable(error->message));
	return cstring_to_text(psprintf("%s: %s", m1pg_displayable(error->message), m1pg_displayable(error->detail)));
}
