/* dialect.c - the table of them: see dialect.h. */
#include "proxy/dialect.h"

#include <string.h>

static const m1_dialect *const dialects[M1_DIALECT_COUNT] = {
	[M1_DIALECT_VLLM] = &m1_dialect_vllm,
	[M1_DIALECT_LLAMA] = &m1_dialect_llama,
	[M1_DIALECT_SGLANG] = &m1_dialect_sglang,
	[M1_DIALECT_OPENAI] = &m1_dialect_openai,
};

const m1_dialect *
m1_dialect_of(m1_dialect_kind kind)
{
	return dialects[kind];
}

bool
m1_dialect_parse(const char *name, m1_dialect_kind *kind)
{
	for (int i = M1_DIALECT_AUTO; i < M1_DIALECT_COUNT; i++)
		if (strcmp(name, dialects[i] != NULL ? dialects[i]->name : "auto") == 0)
		{
			*kind = (m1_dialect_kind) i;
			return true;
		}
	return false;
}

/* Of hosted MiniMax, which says so with HTTP status 200. */
static const m1_json *
find_base_failure(const m1_json *answer)
{
	const m1_json *base = m1_json_get(answer, "base_resp");
	int64_t code;

	return m1_json_is_int64(m1_json_get(base, "status_code"), &code) && code != 0 ? base : NULL;
}

/* {"error": {"message": ...}}, or {"error": ...}, {"message": ...}, {"detail": ...}, each of them somewhere. */
m1_slice
m1_told_message(const m1_json *answer)
{
	const m1_json *error = m1_json_get(answer, "error");
	const m1_json *const places[] = {
		m1_json_get(error, "message"),
		error,
		m1_json_get(answer, "message"),
		m1_json_get(answer, "detail"),
		m1_json_get(find_base_failure(answer), "status_msg"),
	};

	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		if (m1_json_is(places[i], M1_JSON_STRING) && m1_json_text(places[i]).len > 0)
			return m1_json_text(places[i]);
	return (m1_slice){0};
}

bool
m1_told_failure(const m1_json *event, m1_told *told)
{
	const m1_json *error = m1_json_get(event, "error");

	if (!m1_json_is(error, M1_JSON_OBJECT) && !m1_json_is(error, M1_JSON_STRING) &&
		!m1_json_is_text(m1_json_get(event, "object"), "error") && find_base_failure(event) == NULL)
		return false;
	told->failure = m1_told_message(event);
	if (told->failure.len == 0)
		told->failure = m1_slice_of("it does not say why");
	return true;
}
