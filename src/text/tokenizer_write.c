/* tokenizer_write.c - see tokenizer_write.h. */
#include "text/tokenizer_write.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "text/markup.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_internal.h"

const m1_added_token m1_usual_added_tokens[] = {
	{M1_DOCUMENT_OPEN, true},  {M1_TURN_OPEN, true},   {M1_TURN_CLOSE, true},
	{M1_DOCUMENT_CLOSE, true}, {M1_THINK_OPEN, false}, {M1_THINK_CLOSE, false},
};
const size_t m1_n_usual_added_tokens = sizeof m1_usual_added_tokens / sizeof *m1_usual_added_tokens;

/*
 * M1's own, for others: the engine renders chats by chat.c. Loops and conditions write no line breaks, which all stand
 * in quoted texts.
 */
static const char chat_template[] =
	"{{ '" M1_DOCUMENT_OPEN "' -}}"
	"{% set ns = namespace(system_prompt='') -%}"
	"{% for message in messages -%}"
	"{% if message['role'] == 'system' -%}"
	"{% set ns.system_prompt = ns.system_prompt + message['content'][0]['text'] -%}"
	"{% endif -%}"
	"{%- endfor -%}"
	"{% if ns.system_prompt != '' -%}"
	"{{ '" M1_TURN_OPEN "system ai_setting=assistant\n' + ns.system_prompt + '" M1_TURN_CLOSE "\n' -}}"
	"{%- endif -%}"
	"{% if tools -%}"
	"{{ '" M1_TURN_OPEN "system tool_setting=tools\nYou are provided with these tools:\n" M1_TOOLS_OPEN "\n' -}}"
	"{% for tool in tools -%}{{ tool | tojson ~ '\n' -}}{%- endfor -%}"
	"{{ '" M1_TOOLS_CLOSE "\n\nIf you need to call tools, please respond with " M1_CALLS_OPEN M1_CALLS_CLOSE
	" XML tags, and provide tool-name and json-object of arguments, following the format below:\n" M1_CALLS_OPEN
	"\n{''name'': <tool-name-1>, ''arguments'': <args-json-object-1>}\n...\n" M1_CALLS_CLOSE M1_TURN_CLOSE "\n' -}}"
	"{%- endif -%}"
	"{% for message in messages -%}"
	"{% if message['role'] == 'user' -%}"
	"{{ '" M1_TURN_OPEN "user name=user\n' + message['content'][0]['text'] + '" M1_TURN_CLOSE "\n' -}}"
	"{% elif message['role'] == 'assistant' -%}"
	"{{ '" M1_TURN_OPEN "ai name=assistant\n' -}}"
	"{% for content in message['content'] | selectattr('type', 'equalto', 'text') -%}"
	"{{ content['text'] -}}"
	"{%- endfor -%}"
	"{{ '" M1_TURN_CLOSE "\n' -}}"
	"{% elif message['role'] == 'tool' -%}"
	"{{ '" M1_TURN_OPEN "tool name=tools\n' }} "
	"{%- for content in message['content'] -%}"
	"{{- 'tool name: ' + content['name'] + '\n' + 'tool result: ' + content['text'] + '\n\n' -}} "
	"{%- endfor -%}"
	"{{- '" M1_TURN_CLOSE "\n' -}}"
	"{% endif -%}"
	"{%- endfor -%}"
	"{% if add_generation_prompt -%}{{ '" M1_TURN_OPEN "ai name=assistant\n' -}}{%- endif -%}";

/* ---- tokenizer.json ---- */

/* As tokenizer files spell a token. NULL when memory ran out; valid until the next call with this buffer. */
static const char *
spelled(const m1_bpe_learned *l, int32_t id, m1_buf *to)
{
	to->len = 0;
	return m1_tokenizer_spell(m1_bpe_learned_token(l, id), to) ? m1_buf_cstr(to) : NULL;
}

static json_t *
vocab_of(const m1_bpe_learned *l, m1_buf *space)
{
	json_t *vocab = json_object();

	for (int32_t id = 0; id < l->n_tokens; id++)
	{
		const char *token = spelled(l, id, space);

		if (token == NULL || json_object_set_new(vocab, token, json_integer(id)) != 0)
		{
			json_decref(vocab);
			return NULL;
		}
	}
	return vocab;
}

static json_t *
merges_of(const m1_bpe_learned *l, m1_buf *space)
{
	json_t *merges = json_array();

	for (int i = 0; i < l->n_merges; i++)
	{
		space->len = 0;
		/* no token is spelled with a blank */
		if (!m1_tokenizer_spell(m1_bpe_learned_token(l, l->pairs[i][0]), space) || !m1_buf_puts(space, " ") ||
			!m1_tokenizer_spell(m1_bpe_learned_token(l, l->pairs[i][1]), space) ||
			json_array_append_new(merges, json_stringn(space->data, space->len)) != 0)
		{
			json_decref(merges);
			return NULL;
		}
	}
	return merges;
}

static json_t *
added_of(const m1_bpe_learned *l, const m1_added_token *added, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", l->n_tokens + (int) i,
											  "content", added[i].content, "single_word", 0, "lstrip", 0, "rstrip", 0,
											  "normalized", 0, "special", added[i].special));
	return list;
}

/* Steals the three. NULL when one is NULL or memory ran out. */
static json_t *
tokenizer_of(json_t *added, json_t *vocab, json_t *merges)
{
	json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", m1_pretokenizer_o200k,
							  "behavior", "Isolated", "invert", 0);
	json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
							  "use_regex", 0);
	json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
							  "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
							  "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges", merges);

	return json_pack("{s:s, s:n, s:n, s:o, s:n, s:{s:s, s:[o, O]}, s:n, s:o, s:o}", "version", "1.0", "truncation",
					 "padding", "added_tokens", added, "normalizer", "pre_tokenizer", "type", "Sequence",
					 "pretokenizers", split, bytes, "post_processor", "decoder", bytes, "model", model);
}

static m1_status
append_json(json_t *root, m1_buf *out, m1_error *err)
{
	char *text = root != NULL ? json_dumps(root, JSON_INDENT(1)) : NULL;
	const bool done = text != NULL && m1_buf_puts(out, text) && m1_buf_puts(out, "\n");

	free(text);
	json_decref(root);
	return done ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for the tokenizer's files");
}

m1_status
m1_tokenizer_json_text(const m1_bpe_learned *learned, const m1_added_token *added, size_t n_added, m1_buf *out,
					   m1_error *err)
{
	m1_buf space = {0};
	json_t *vocab = vocab_of(learned, &space);
	json_t *merges = merges_of(learned, &space);

	m1_buf_free(&space);
	return append_json(tokenizer_of(added_of(learned, added, n_added), vocab, merges), out, err);
}

m1_status
m1_tokenizer_config_text(m1_buf *out, m1_error *err)
{
	return append_json(json_pack("{s:s, s:b, s:s, s:s, s:s, s:b, s:s}", "tokenizer_class", "PreTrainedTokenizerFast",
								 "add_prefix_space", 0, "bos_token", M1_TURN_OPEN, "eos_token", M1_TURN_CLOSE,
								 "unk_token", M1_DOCUMENT_CLOSE, "clean_up_tokenization_spaces", 0, "chat_template",
								 chat_template),
					   out, err);
}
