/*
 * texts.c
 *	  Texts between the server's encoding and UTF-8, which the engine speaks.
 */
#include "pg/client/texts.h"
#include "pg/settings.h"

#include <limits.h>

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

m1_slice
m1pg_to_utf8(const char *s, Size len)
{
	m1_slice	slice;

	slice.data = (const char *) pg_server_to_any(s, len, PG_UTF8);
	slice.len = slice.data == s ? len : strlen(slice.data);
	return slice;
}

m1_slice
m1pg_utf8_of_text(const text *t)
{
	return m1pg_to_utf8(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

text *
m1pg_text_from_utf8(m1_slice s)
{
	char	   *converted = pg_any_to_server(s.data, s.len, PG_UTF8);

	return cstring_to_text_with_len(converted, converted == s.data ? s.len : strlen(converted));
}

/* Converts as far as it goes; NULL when that is not to the end. */
static text *
convert_or_null(m1_slice s)
{
	int			encoding = GetDatabaseEncoding();
	Oid			proc = FindDefaultConversionProc(PG_UTF8, encoding);
	Size		size = (s.len + 2) * MAX_CONVERSION_GROWTH;
	char	   *converted;
	text	   *result = NULL;

	if (!OidIsValid(proc))
		return NULL;
	converted = palloc_extended(size, MCXT_ALLOC_HUGE);
	if (pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding, (unsigned char *) unconstify(char *, s.data),
									  (int) s.len, (unsigned char *) converted, (int) Min(size, INT_MAX),
									  true) == (int) s.len)
		result = cstring_to_text(converted);
	pfree(converted);
	return result;
}

text *
m1pg_try_text_from_utf8(m1_slice s)
{
	if (s.len == 0)
		return cstring_to_text("");
	if (!pg_verify_mbstr(PG_UTF8, s.data, (int) s.len, true))
		return NULL;
	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return cstring_to_text_with_len(s.data, (int) s.len);
	return convert_or_null(s);
}

text *
m1pg_scalar_text(m1_slice s)
{
	text	   *t = m1pg_try_text_from_utf8(s);

	if (t == NULL && m1pg_on_error == M1_ON_ERROR_RAISE)
		return m1pg_text_from_utf8(s);	/* raises, in PostgreSQL's words */
	return t;
}

m1_slice
m1pg_keep(m1_slice s)
{
	char	   *copy = palloc(s.len + 1);

	/* not pnstrdup: numbers hold zero bytes */
	if (s.len > 0)
		memcpy(copy, s.data, s.len);
	copy[s.len] = '\0';
	s.data = copy;
	return s;
}
