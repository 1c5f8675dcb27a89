/*
 * texts.c
 *	  Texts between the server's encoding and UTF-8, which the engine speaks.
 */
#include "pg/client/texts.h"
#include "pg/settings.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

/* What a text becomes that cannot be converted: no request is made with it. */
#define NOT_UTF8	"\xff"
/* Bytes that are converted between two looks at whether that is still wanted. */
#define PIECE		(1 << 20)

/* The beginning of a text converted, as a string, and how many bytes it was: none where it begins with no character. */
static Size
convert_piece(Oid proc, int from, int to, m1_slice s, char *converted)
{
	int			len = (int) Min(s.len, PIECE);

	/* a character that the piece ends in is left for the next */
	return pg_do_encoding_conversion_buf(proc, from, to, (unsigned char *) unconstify(char *, s.data), len,
										 (unsigned char *) converted, (len + 2) * MAX_CONVERSION_GROWTH, true);
}

/* All of it converted, as a string; NULL when that cannot be done. */
static char *
convert_or_null(m1_slice s, int from, int to)
{
	Oid			proc = FindDefaultConversionProc(from, to);
	char	   *converted;
	char	   *end;

	if (!OidIsValid(proc))
		return NULL;
	converted = end = palloc_extended((s.len + 2) * MAX_CONVERSION_GROWTH, MCXT_ALLOC_HUGE);
	for (Size n; s.len > 0; s.data += n, s.len -= n)
	{
		CHECK_FOR_INTERRUPTS();
		if ((n = convert_piece(proc, from, to, s, end)) == 0)
		{
			pfree(converted);
			return NULL;
		}
		end += strlen(end);
	}
	return converted;
}

/* Never an error: that would be one of the statement, and not of the request. */
m1_slice
m1pg_to_utf8(const char *s, Size len)
{
	m1_slice	slice = {s, len};
	int			encoding = GetDatabaseEncoding();

	if (len == 0 || encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return slice;
	slice.data = convert_or_null(slice, encoding, PG_UTF8);
	return m1_slice_of(slice.data != NULL ? slice.data : pstrdup(NOT_UTF8));
}

bool
m1pg_check_utf8(m1_slice s, const char *what, m1_error *error)
{
	/* the server has looked at what it holds in UTF-8 */
	if (s.len == 0 || GetDatabaseEncoding() == PG_UTF8 || pg_verify_mbstr(PG_UTF8, s.data, (int) s.len, true))
		return true;
	m1_fail(error, M1_E_INVALID_ARGUMENT, "a text cannot be converted to UTF-8");
	m1_error_detail(error, "It is the %s. The encoding of this database is %s.", what, GetDatabaseEncodingName());
	return false;
}

m1_slice
m1pg_utf8_of_text(const text *t)
{
	return m1pg_to_utf8(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

text *
m1pg_json_argument(FunctionCallInfo fcinfo, int arg)
{
	Oid		   *types;
	int			n;
	Jsonb	   *jb;

	(void) get_func_signature(fcinfo->flinfo->fn_oid, &types, &n);
	if (arg >= n || types[arg] != JSONBOID)
		return PG_GETARG_TEXT_PP(arg);
	jb = PG_GETARG_JSONB_P(arg);
	return cstring_to_text(JsonbToCString(NULL, &jb->root, VARSIZE(jb)));
}

text *
m1pg_text_from_utf8(m1_slice s)
{
	char	   *converted = pg_any_to_server(s.data, s.len, PG_UTF8);

	return cstring_to_text_with_len(converted, converted == s.data ? s.len : strlen(converted));
}

text *
m1pg_try_text_from_utf8(m1_slice s)
{
	char	   *converted;

	if (s.len == 0)
		return cstring_to_text("");
	if (!pg_verify_mbstr(PG_UTF8, s.data, (int) s.len, true))
		return NULL;
	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return cstring_to_text_with_len(s.data, (int) s.len);
	converted = convert_or_null(s, PG_UTF8, GetDatabaseEncoding());
	return converted != NULL ? cstring_to_text(converted) : NULL;
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
