/* lookups.c - paths that are answered by one value of the database: /v1/models, /tokenize, /detokenize; see http.h. */
#include <string.h>

#include "gateway/http_answer.h"
#include "gateway/jsonform.h"
#include "gateway/openai.h"
#include "text/jsontext.h"

#define MODELS_PATH "/v1/models/"

static void
add_value(m1_buf *out, const PGresult *result, int row)
{
	if (!PQgetisnull(result, row, 0))
		gw_json(out, "%r", (m1_slice){PQgetvalue(result, row, 0), (size_t) PQgetlength(result, row, 0)});
}

static void
reply_value(gw_http_exchange *x, m1_buf *out, const gw_failure *failure)
{
	if (failure != NULL)
		gw_http_fail_with(x, failure, NULL);
	else if (out->len == 0)
		gw_http_fail(x, 404, "invalid_request_error", "model_not_found", "there is no such model");
	else
		gw_http_reply(x, 200, "application/json", (m1_slice){out->data, out->len});
}

/* Answers with the one value of the statement, which is JSON. */
static void
look_up(gw_http_exchange *x, gw_statement *statement)
{
	static const gw_answer answer = {add_value, reply_value};

	gw_http_answer(x, &x->login, statement, &answer);
}

/* ---- GET /v1/models, and one of them ---- */

#define MODEL                                                                                              \
	"pg_catalog.json_build_object('id', name, 'object', 'model', 'created', 0, 'owned_by', 'minimax_m1', " \
	"'max_model_len', context)"

void
gw_models_handle(gw_http_exchange *x)
{
	const size_t n = sizeof MODELS_PATH - 1;
	gw_statement s = {0};

	if (strncmp(x->head->path, MODELS_PATH, n) == 0)
	{
		gw_sql(&s, "SELECT " MODEL " FROM minimax_m1.model WHERE name = ");
		gw_sql_value(&s, m1_slice_of(x->head->path + n), "text");
	}
	else
		gw_sql(&s, "SELECT pg_catalog.json_build_object('object', 'list', 'data', coalesce(pg_catalog.json_agg(" MODEL
				   "), '[]')) FROM minimax_m1.model WHERE name <> ''");
	look_up(x, &s);
}

/* ---- POST /tokenize and /detokenize ---- */

/* The member of the body that is asked about. NULL: it was refused. */
static const m1_json *
read_member(gw_http_exchange *x, m1_json_doc *doc, const char *name, m1_json_kind kind)
{
	const char *const keys[] = {name, "model", "add_special_tokens", NULL};
	const m1_json *value;
	gw_failure failure;
	m1_error err;

	if (m1_json_parse(x->body, "body", NULL, doc, &err) != M1_OK)
	{
		gw_failure_of_error(&failure, &err);
		gw_http_fail_with(x, &failure, NULL);
		return NULL;
	}
	value = m1_json_get(doc->root, name);
	if (m1_json_is(value, kind) && m1_json_other_key(doc->root, keys) == NULL)
		return value;
	gw_failure_set(&failure, "22023", "the body has one key only, of the right type", name, NULL);
	gw_http_fail_with(x, &failure, name);
	return NULL;
}

void
gw_tokenize_handle(gw_http_exchange *x)
{
	m1_json_doc doc = {0};
	const m1_json *prompt = read_member(x, &doc, "prompt", M1_JSON_STRING);
	gw_statement s = {0};

	if (prompt != NULL)
	{
		gw_sql(
			&s,
			"SELECT pg_catalog.json_build_object('count', pg_catalog.cardinality(t.ids), 'max_model_len', m.context, "
			"'tokens', t.ids) FROM (SELECT minimax_m1.tokenize(");
		gw_sql_value(&s, m1_json_text(prompt), "text");
		gw_sql(&s, ") AS ids OFFSET 0) t CROSS JOIN minimax_m1.model m");
		look_up(x, &s);
	}
	m1_json_free(&doc);
}

void
gw_detokenize_handle(gw_http_exchange *x)
{
	m1_json_doc doc = {0};
	const m1_json *tokens = read_member(x, &doc, "tokens", M1_JSON_ARRAY);
	m1_buf text = {0};
	gw_statement s = {0};

	if (tokens != NULL)
	{
		m1_json_write(&text, tokens, M1_JSON_AS_GIVEN);
		gw_sql(&s, "SELECT pg_catalog.json_build_object('prompt', minimax_m1.detokenize(ARRAY(SELECT e.v::int FROM "
				   "pg_catalog.json_array_elements_text(");
		gw_sql_value(&s, (m1_slice){text.data, text.len}, "json");
		gw_sql(&s, ") WITH ORDINALITY AS e(v, n) ORDER BY e.n)))");
		s.failed |= text.failed;
		look_up(x, &s);
		m1_buf_free(&text);
	}
	m1_json_free(&doc);
}
