/* examples.c - see examples.h. */
#define _GNU_SOURCE /* getline */
#include "train/examples.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/chat.h"
#include "text/jsonparse.h"
#include "text/jsontext.h"
#include "text/markup.h"

/* One file while it is read. */
typedef struct reader
{
	const char *path;
	size_t line;
	const m1_example_rules *rules;
	m1_example_sink sink;
	void *context;
	m1_example_counts *counts;
	/* the sequence that the line becomes */
	m1_ids ids;
	m1_ids replies; /* begins and ends of what the assistant says */
	float *weights;
	size_t cap_weights;
	m1_buf json; /* of parts of the line */
	m1_error *err;
} reader;

/* ---- errors, which name the place ---- */

/* The error that is there already, at this line. */
static m1_status
at_line(reader *r, m1_status status)
{
	m1_error said;

	if (r->err == NULL)
		return status;
	said = *r->err;
	m1_fail(r->err, status, "%.100s, line %zu: %.130s", r->path, r->line, said.message);
	m1_error_detail(r->err, "%s", said.detail);
	m1_error_hint(r->err, "%s", said.hint);
	return status;
}

#define bad(r, ...) at_line(r, m1_fail((r)->err, M1_E_INVALID_ARGUMENT, __VA_ARGS__))

static m1_status
no_memory(reader *r)
{
	return at_line(r, m1_fail(r->err, M1_E_NO_MEMORY, "out of memory"));
}

/* ---- parts of a line ---- */

/* M1_OK with *text NULL when the key is absent. */
static m1_status
text_of(reader *r, const m1_json *line, const char *key, const char **text)
{
	const m1_json *value = m1_json_get(line, key);

	*text = m1_json_cstr(value);
	if (value != NULL && !m1_json_is(value, M1_JSON_STRING))
		return bad(r, "\"%s\" is not a text", key);
	return M1_OK;
}

/* Appends an array of the line as JSON text; nothing when the key is absent. */
static m1_status
array_of(reader *r, const m1_json *line, const char *key)
{
	const m1_json *value = m1_json_get(line, key);

	if (value == NULL)
		return M1_OK;
	if (!m1_json_is(value, M1_JSON_ARRAY))
		return bad(r, "\"%s\" is not an array", key);
	return m1_json_write(&r->json, value, M1_JSON_AS_GIVEN) ? M1_OK : no_memory(r);
}

/* A weight of the loss, which is not negative; *weight stays when the key is absent. */
static m1_status
weight_of(reader *r, const m1_json *value, const char *what, float *weight)
{
	if (value == NULL)
		return M1_OK;
	if (!m1_json_is(value, M1_JSON_NUMBER) || !(m1_json_real(value) >= 0.0) || m1_json_real(value) > 1e6)
		return bad(r, "\"%s\" is not a number from 0 to 1000000", what);
	*weight = (float) m1_json_real(value);
	return M1_OK;
}

static m1_status
weights_of(reader *r, const m1_json *line, float *prompt, float *answer)
{
	m1_status status;

	*prompt = r->rules->prompt_weight;
	*answer = r->rules->answer_weight;
	if ((status = weight_of(r, m1_json_get(line, "prompt_weight"), "prompt_weight", prompt)) != M1_OK)
		return status;
	return weight_of(r, m1_json_get(line, "answer_weight"), "answer_weight", answer);
}

/* Makes room for the weights of all ids, and gives each the same. */
static m1_status
weigh_all(reader *r, float weight)
{
	if (r->cap_weights < r->ids.len)
	{
		float *grown = realloc(r->weights, r->ids.len * sizeof *grown);

		if (grown == NULL)
			return no_memory(r);
		r->weights = grown;
		r->cap_weights = r->ids.len;
	}
	for (size_t i = 0; i < r->ids.len; i++)
		r->weights[i] = weight;
	return M1_OK;
}

/* ---- conversations ---- */

/* The messages' text is in r->json. */
static m1_status
render(reader *r, const m1_json *line)
{
	const size_t at = r->json.len;
	const char *system;
	m1_chat chat = {.replies = &r->replies};
	m1_chat_bounds bounds;
	float prompt, answer;
	m1_status status;

	if ((status = text_of(r, line, "system", &system)) != M1_OK ||
		(status = weights_of(r, line, &prompt, &answer)) != M1_OK || (status = array_of(r, line, "tools")) != M1_OK)
		return status;
	chat.system = m1_slice_of(system != NULL ? system : r->rules->system);
	chat.messages = (m1_slice){r->json.data, at};
	chat.tools = (m1_slice){r->json.data + at, r->json.len - at};
	if ((status = m1_chat_render(r->rules->tokenizer, &chat, &r->ids, &bounds, r->err)) != M1_OK)
		return at_line(r, status);
	if (r->replies.len == 0)
		return bad(r, "\"messages\" has no message of the assistant to learn");
	if ((status = weigh_all(r, prompt)) != M1_OK)
		return status;
	for (size_t i = 0; i < r->replies.len; i += 2)
		for (int32_t t = r->replies.data[i]; t < r->replies.data[i + 1]; t++)
			r->weights[t] = answer;
	return M1_OK;
}

static m1_status
read_messages(reader *r, const m1_json *line)
{
	m1_status status = array_of(r, line, "messages");

	return status == M1_OK ? render(r, line) : status;
}

/* The assistant's words: reasoning that is there but empty is said to be none, as where the engine leaves it out. */
static void
put_reply(m1_buf *out, const char *reasoning, const char *answer)
{
	if (reasoning != NULL)
	{
		m1_buf_puts(out, M1_THINK_BEFORE);
		m1_buf_puts(out, reasoning);
		m1_buf_puts(out, M1_THINK_BEHIND);
	}
	m1_buf_puts(out, answer);
}

static m1_status
read_prompt(reader *r, const m1_json *line)
{
	const char *prompt, *answer, *reasoning;
	m1_buf reply = {0};
	m1_status status;

	if ((status = text_of(r, line, "prompt", &prompt)) != M1_OK ||
		(status = text_of(r, line, "answer", &answer)) != M1_OK ||
		(status = text_of(r, line, "reasoning", &reasoning)) != M1_OK)
		return status;
	if (answer == NULL)
		return bad(r, "\"prompt\" is there without \"answer\"");
	put_reply(&reply, reasoning, answer);
	m1_buf_puts(&r->json, "[{\"role\": \"user\", \"content\": ");
	m1_json_write_string(&r->json, m1_slice_of(prompt));
	m1_buf_puts(&r->json, "}, {\"role\": \"assistant\", \"content\": ");
	m1_json_write_string(&r->json, (m1_slice){reply.data, reply.len});
	m1_buf_puts(&r->json, "}]");
	r->json.failed |= reply.failed;
	m1_buf_free(&reply);
	return r->json.failed ? no_memory(r) : render(r, line);
}

/* ---- texts and ids ---- */

/* A token that not every tokenizer has. */
static void
push_if_there(reader *r, const char *token)
{
	const int32_t id = m1_tokenizer_added_id(r->rules->tokenizer, token);

	if (id >= 0)
		m1_ids_push(&r->ids, id);
}

static m1_status
read_text(reader *r, const m1_json *line)
{
	const m1_tokenizer *t = r->rules->tokenizer;
	const char *text;
	float prompt, answer;
	m1_status status;

	if ((status = text_of(r, line, "text", &text)) != M1_OK ||
		(status = weights_of(r, line, &prompt, &answer)) != M1_OK)
		return status;
	push_if_there(r, M1_DOCUMENT_OPEN);
	if ((status = m1_tokenizer_encode(t, m1_slice_of(text), M1_ADDED_NONE, &r->ids, NULL, NULL, r->err)) != M1_OK)
		return at_line(r, status);
	push_if_there(r, M1_DOCUMENT_CLOSE);
	return r->ids.failed ? no_memory(r) : weigh_all(r, answer);
}

static m1_status
read_id(reader *r, const m1_json *value, size_t i)
{
	int64_t id;

	if (!m1_json_is_int64(value, &id))
		return bad(r, "\"ids\" has something that is no token id, as number %zu", i + 1);
	if (id < 0 || id >= r->rules->vocab_rows)
	{
		m1_fail(r->err, M1_E_INVALID_ARGUMENT, "token id %lld is outside the vocabulary", (long long) id);
		m1_error_detail(r->err, "It is number %zu of \"ids\"; the model has ids from 0 to %d.", i + 1,
						r->rules->vocab_rows - 1);
		return at_line(r, M1_E_INVALID_ARGUMENT);
	}
	return m1_ids_push(&r->ids, (int32_t) id) ? M1_OK : no_memory(r);
}

static m1_status
read_ids(reader *r, const m1_json *line)
{
	const m1_json *ids = m1_json_get(line, "ids");
	const m1_json *weights = m1_json_get(line, "weights");
	m1_status status = M1_OK;

	if (r->rules->vocab_rows == 0)
		return bad(r, "\"ids\" is no text");
	if (!m1_json_is(ids, M1_JSON_ARRAY))
		return bad(r, "\"ids\" is not an array");
	for (size_t i = 0; i < m1_json_size(ids) && status == M1_OK; i++)
		status = read_id(r, m1_json_at(ids, i), i);
	if (status != M1_OK || (status = weigh_all(r, r->rules->answer_weight)) != M1_OK || weights == NULL)
		return status;
	if (m1_json_size(weights) != r->ids.len)
		return bad(r, "\"weights\" is not an array of %zu numbers, one for each id", r->ids.len);
	for (size_t i = 0; i < r->ids.len && status == M1_OK; i++)
		status = weight_of(r, m1_json_at(weights, i), "weights", &r->weights[i]);
	return status;
}

/* ---- a sequence on its way out ---- */

/* Whether some token behind the first is to be learnt. */
static bool
any_weight(const float *weights, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (weights[i] > 0.0f)
			return true;
	return false;
}

/* The pieces are learnt as if each began a sequence. */
static m1_status
split(reader *r)
{
	const size_t most = r->rules->max_tokens;
	m1_status status = M1_OK;

	r->counts->split++;
	for (size_t at = 0; at + 1 < r->ids.len && status == M1_OK; at += most)
	{
		const size_t n = r->ids.len - at < most ? r->ids.len - at : most;

		r->weights[at] = 0.0f;
		if (any_weight(r->weights + at, n))
			status = r->sink(r->context, r->ids.data + at, r->weights + at, n, r->err);
	}
	return status;
}

static m1_status
too_long(reader *r, bool pieces_allowed)
{
	if (r->rules->too_long == M1_LONG_SKIP)
	{
		r->counts->skipped++;
		return M1_OK;
	}
	if (r->rules->too_long == M1_LONG_SPLIT && pieces_allowed)
		return split(r);
	m1_fail(r->err, M1_E_CONTEXT_OVERFLOW, "%zu tokens are longer than the context", r->ids.len);
	m1_error_detail(r->err, "The context is %zu tokens.", r->rules->max_tokens);
	m1_error_hint(r->err, pieces_allowed ? "Use {too_long} skip or split, or a longer {max_context}."
										 : "Use {too_long} skip, or a longer {max_context}.");
	return at_line(r, M1_E_CONTEXT_OVERFLOW);
}

static m1_status
pass_on(reader *r, bool pieces_allowed)
{
	if (!any_weight(r->weights, r->ids.len))
		return bad(r, "there is nothing to learn: no token behind the first has a weight");
	if (r->ids.len > r->rules->max_tokens)
		return too_long(r, pieces_allowed);
	r->weights[0] = 0.0f;
	return r->sink(r->context, r->ids.data, r->weights, r->ids.len, r->err);
}

/* ---- a line ---- */

/* The forms, and the keys that each may have. */
static const struct form
{
	const char *key; /* that makes a line one of this form */
	const char *others[7];
	m1_status (*read)(reader *r, const m1_json *line);
	bool needs_tokenizer;
	bool pieces_allowed;
} forms[] = {
	{"messages", {"system", "tools", "prompt_weight", "answer_weight"}, read_messages, true, false},
	{"prompt", {"answer", "reasoning", "system", "tools", "prompt_weight", "answer_weight"}, read_prompt, true, false},
	{"text", {"answer_weight"}, read_text, true, true},
	{"ids", {"weights"}, read_ids, false, true},
};

static const struct form *
form_of(const m1_json *line)
{
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		if (m1_json_get(line, forms[i].key) != NULL)
			return &forms[i];
	return NULL;
}

static m1_status
check_keys(reader *r, const m1_json *line, const struct form *form)
{
	m1_json_foreach (line, value)
	{
		const char *key = m1_json_key(value);
		bool known = strcmp(key, form->key) == 0;

		for (size_t i = 0; form->others[i] != NULL && !known; i++)
			known = strcmp(key, form->others[i]) == 0;
		if (!known)
			return bad(r, "\"%.60s\" is no key of a line with \"%s\"", key, form->key);
	}
	return M1_OK;
}

static m1_status
read_object(reader *r, const m1_json *line)
{
	const struct form *form = form_of(line);
	m1_status status;

	if (form == NULL)
		return bad(r, "it is no object with \"messages\", \"prompt\", \"text\" or \"ids\"");
	if ((status = check_keys(r, line, form)) != M1_OK)
		return status;
	if (form->needs_tokenizer && r->rules->tokenizer == NULL)
		return bad(r, "\"%s\" needs a tokenizer, and the model has none", form->key);
	r->ids.len = r->replies.len = r->json.len = 0;
	if ((status = form->read(r, line)) != M1_OK)
		return status;
	return pass_on(r, form->pieces_allowed);
}

static bool
is_blank(const char *line, size_t len)
{
	return strspn(line, " \t\r\n") == len;
}

static m1_status
read_line(reader *r, const char *text, size_t len)
{
	m1_json_doc doc;
	m1_status status;

	r->line++;
	if (r->rules->goes_on != NULL && !r->rules->goes_on(r->rules->goes_on_context))
		return m1_fail(r->err, M1_E_CANCELLED, "interrupted");
	if (is_blank(text, len))
		return M1_OK;
	r->counts->lines++;
	if ((status = m1_json_parse((m1_slice){text, len}, "it", NULL, &doc, r->err)) != M1_OK)
		return at_line(r, status);
	status = read_object(r, doc.root);
	m1_json_free(&doc);
	return status;
}

/* ---- a file ---- */

static m1_status
read_lines(reader *r, FILE *file)
{
	char *line = NULL;
	size_t cap = 0;
	m1_status status = M1_OK;

	for (ssize_t n; status == M1_OK && (n = getline(&line, &cap, file)) >= 0;)
		status = read_line(r, line, (size_t) n);
	free(line);
	if (status == M1_OK && !feof(file))
		status = m1_fail(r->err, M1_E_IO, "could not read \"%.150s\": %s", r->path, strerror(errno));
	return status;
}

m1_status
m1_examples_each(const char *path, const m1_example_rules *rules, m1_example_sink sink, void *context,
				 m1_example_counts *counts, m1_error *err)
{
	reader r = {.path = path, .rules = rules, .sink = sink, .context = context, .counts = counts, .err = err};
	FILE *file = fopen(path, "rbe");
	m1_status status;

	if (file == NULL)
		return m1_fail(err, errno == ENOENT ? M1_E_NOT_FOUND : M1_E_IO, "could not open \"%.150s\": %s", path,
					   strerror(errno));
	status = read_lines(&r, file);
	fclose(file);
	m1_ids_free(&r.ids);
	m1_ids_free(&r.replies);
	m1_buf_free(&r.json);
	free(r.weights);
	return status;
}

/* ---- all of them ---- */

static bool
make_room(m1_examples *e, size_t tokens)
{
	const size_t used = e->n > 0 ? e->begins[e->n] : 0;

	if (used + tokens > e->cap_tokens)
	{
		const size_t cap = 2 * (used + tokens);
		int32_t *ids = realloc(e->ids, cap * sizeof *ids);
		float *weights;

		if (ids == NULL)
			return false;
		e->ids = ids;
		if ((weights = realloc(e->weights, cap * sizeof *weights)) == NULL)
			return false;
		e->weights = weights;
		e->cap_tokens = cap;
	}
	if (e->n + 2 > e->cap_examples)
	{
		const size_t cap = 2 * (e->n + 2);
		size_t *begins = realloc(e->begins, cap * sizeof *begins);

		if (begins == NULL)
			return false;
		e->begins = begins;
		e->begins[0] = 0;
		e->cap_examples = cap;
	}
	return true;
}

static m1_status
keep(void *context, const int32_t *ids, const float *weights, size_t n, m1_error *err)
{
	m1_examples *e = context;

	if (!make_room(e, n))
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for the examples");
	memcpy(e->ids + e->begins[e->n], ids, n * sizeof *ids);
	memcpy(e->weights + e->begins[e->n], weights, n * sizeof *weights);
	e->begins[e->n + 1] = e->begins[e->n] + n;
	e->n++;
	return M1_OK;
}

m1_status
m1_examples_read(m1_examples *e, const char *path, const m1_example_rules *rules, m1_error *err)
{
	return m1_examples_each(path, rules, keep, e, &e->counts, err);
}

void
m1_examples_free(m1_examples *e)
{
	free(e->ids);
	free(e->weights);
	free(e->begins);
	*e = (m1_examples){0};
}

static uint64_t
digest_bytes(uint64_t h, const void *data, size_t n)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < n; i++)
		h = (h ^ bytes[i]) * 0x100000001b3u;
	return h;
}

uint64_t
m1_examples_digest(const m1_examples *e)
{
	uint64_t h = 0xcbf29ce484222325u;

	if (e->n == 0)
		return h;
	h = digest_bytes(h, e->ids, e->begins[e->n] * sizeof *e->ids);
	h = digest_bytes(h, e->weights, e->begins[e->n] * sizeof *e->weights);
	return digest_bytes(h, e->begins, (e->n + 1) * sizeof *e->begins);
}
