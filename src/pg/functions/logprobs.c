/*
 * logprobs.c
 *	  The log probabilities of tokens, which the engine tells as JSON: each number
 *	  is one that can be, whatever it says.
 */
#include "pg/functions/logprobs.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "text/jsonparse.h"
#include "wire/message.h"

/* As OpenAI's interface has the logarithm of 0. */
#define LEAST	(-9999.0)
/* Above 0, which rounding may make of it. */
#define MOST	1e-3
/* Ten for a token or an alternative, and one more for each of its bytes. */
#define MOST_VALUES (4 << 20)

static bool
are_bytes(const m1_json *bytes)
{
	int64_t		byte;

	m1_json_foreach(bytes, one)
	{
		if (!m1_json_is_int64(one, &byte) || byte < 0 || byte > 255)
			return false;
	}
	return m1_json_is(bytes, M1_JSON_ARRAY);
}

/* What a token and an alternative have in common. */
static bool
is_measured(const m1_json *token)
{
	const m1_json *logprob = m1_json_get(token, "logprob");

	return m1_json_is(m1_json_get(token, "token"), M1_JSON_STRING) && are_bytes(m1_json_get(token, "bytes")) &&
		m1_json_is(logprob, M1_JSON_NUMBER) && m1_json_real(logprob) >= LEAST && m1_json_real(logprob) <= MOST;
}

static bool
is_channel(const m1_json *name)
{
	for (int i = 0; i < M1W_CHANNEL_COUNT; i++)
		if (m1_json_is_text(name, m1w_channel_name(i)))
			return true;
	return false;
}

static bool
is_token(const m1_json *token)
{
	const m1_json *top = m1_json_get(token, "top_logprobs");

	m1_json_foreach(top, one)
	{
		if (!is_measured(one))
			return false;
	}
	return is_measured(token) && is_channel(m1_json_get(token, "channel")) && m1_json_is(top, M1_JSON_ARRAY) &&
		m1_json_size(top) <= M1W_MAX_TOP_LOGPROBS;
}

static bool
are_tokens(m1_slice json)
{
	m1_json_doc doc = {0};
	m1_error	unused;
	bool		believed = m1_json_parse_up_to(json, "logprobs", MOST_VALUES, NULL, &doc, &unused) == M1_OK &&
		m1_json_is(doc.root, M1_JSON_ARRAY);

	m1_json_foreach(doc.root, token)
		believed = believed && is_token(token);
	m1_json_free(&doc);
	return believed;
}

/* Those of JSON's strings, of which other than ASCII stand nowhere else. */
static void
append_escaped(StringInfo s, pg_wchar c)
{
	if (c >= 0x10000)
		appendStringInfo(s, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + (c & 0x3FF));
	else
		appendStringInfo(s, "\\u%04x", c);
}

/* In an encoding that may lack parts of characters, and those of tokens that were only likely: \uXXXX. */
static m1_slice
for_database(m1_slice json)
{
	StringInfoData s;

	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return json;
	initStringInfo(&s);
	for (size_t at = 0; at < json.len;)
	{
		const unsigned char *c = (const unsigned char *) json.data + at;

		if (IS_HIGHBIT_SET(*c))
			append_escaped(&s, utf8_to_unicode(c));
		else
			appendStringInfoChar(&s, *c);
		at += pg_utf_mblen(c);
	}
	return (m1_slice) {s.data, s.len};
}

m1_slice
m1pg_read_logprobs(m1_slice json)
{
	if (!are_tokens(json))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("minimax_m1: the engine's log probabilities of tokens cannot be"),
				 errhint("Look into the server's log for why the engine may be broken.")));
	return for_database(json);
}
