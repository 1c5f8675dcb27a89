/*
 * adapter_config.c - see adapter_config.h.
 *
 * Modules are found as PEFT finds them: by the ends of their names, or by a regular expression of the whole name.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/adapter_config.h"

#include <jansson.h>
#include <math.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "files/jsonfile.h"

#define MATCH_STEPS 100000 /* of a pattern from a file: a good one takes a hundred */

/* A regular expression, and the number that goes with it. */
typedef struct pattern
{
	pcre2_code *code;
	double value;
} pattern;

typedef struct patterns
{
	pattern *list;
	size_t n;
} patterns;

/* Modules: by the ends of their names, or by an expression; neither: none. */
typedef struct module_set
{
	const json_t *ends; /* an array of strings, or NULL */
	patterns expression;
} module_set;

struct m1_adapter_config
{
	json_t *root;
	int rank;
	double alpha;
	bool rank_stabilized;
	module_set targets;
	module_set excluded;
	const json_t *saved;  /* modules_to_save: an array of strings, or NULL */
	const json_t *layers; /* layers_to_transform: an integer or an array of them, or NULL */
	patterns layer_names; /* expressions whose first group is a layer's number */
	patterns ranks;
	patterns alphas;
	pcre2_match_context *limits;
	pcre2_match_data *match;
};

static m1_status
malformed(m1_error *err, const char *key, const char *should)
{
	m1_fail(err, M1_E_CORRUPT, M1_ADAPTER_CONFIG ": \"%.60s\" must be %s", key, should);
	return M1_E_CORRUPT;
}

/* ---- expressions ---- */

static void
free_patterns(patterns *p)
{
	for (size_t i = 0; i < p->n; i++)
		pcre2_code_free(p->list[i].code);
	free(p->list);
	*p = (patterns){0};
}

/* Adds before + text + after, which the whole of a name has to match. */
static m1_status
add_pattern(patterns *p, const char *before, const char *text, const char *after, double value, m1_error *err)
{
	pattern *grown = realloc(p->list, (p->n + 1) * sizeof *grown);
	m1_buf whole = {0};
	int code = 0;
	PCRE2_SIZE at = 0;

	if (grown == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
	p->list = grown;
	m1_buf_puts(&whole, before);
	m1_buf_puts(&whole, text);
	m1_buf_puts(&whole, after);
	if (m1_buf_cstr(&whole) == NULL)
	{
		m1_buf_free(&whole);
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
	}
	p->list[p->n] = (pattern){.value = value};
	p->list[p->n].code = pcre2_compile((PCRE2_SPTR) whole.data, whole.len,
									   PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF, &code, &at, NULL);
	m1_buf_free(&whole);
	if (p->list[p->n].code == NULL)
	{
		PCRE2_UCHAR why[120] = "";

		pcre2_get_error_message(code, why, sizeof why);
		m1_fail(err, M1_E_CORRUPT, M1_ADAPTER_CONFIG ": \"%.100s\" is not a regular expression", text);
		m1_error_detail(err, "%s.", (const char *) why);
		return M1_E_CORRUPT;
	}
	p->n++;
	return M1_OK;
}

static m1_status
matches(const m1_adapter_config *c, const pattern *p, const char *name, bool *yes, m1_error *err)
{
	const int rc = pcre2_match(p->code, (PCRE2_SPTR) name, strlen(name), 0, 0, c->match, c->limits);

	*yes = rc >= 0;
	if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH)
		return M1_OK;
	m1_fail(err, M1_E_UNSUPPORTED, M1_ADAPTER_CONFIG ": a regular expression takes too long");
	m1_error_detail(err, "It was matched with \"%s\".", name);
	return M1_E_UNSUPPORTED;
}

/* The value of the first that matches, or `otherwise`. */
static m1_status
value_of(const m1_adapter_config *c, const patterns *p, const char *name, double otherwise, double *value,
		 m1_error *err)
{
	bool yes = false;

	*value = otherwise;
	for (size_t i = 0; i < p->n && !yes; i++)
	{
		m1_status status = matches(c, &p->list[i], name, &yes, err);

		if (status != M1_OK)
			return status;
		if (yes)
			*value = p->list[i].value;
	}
	return M1_OK;
}

/* ---- reading ---- */

/* null, false, and what is empty, say that a feature is not used. */
static bool
is_off(const json_t *value)
{
	return value == NULL || json_is_null(value) || json_is_false(value) ||
		   (json_is_string(value) && json_string_length(value) == 0) ||
		   (json_is_array(value) && json_array_size(value) == 0) ||
		   (json_is_object(value) && json_object_size(value) == 0);
}

static m1_status
read_names(const json_t *value, const char *key, const json_t **out, m1_error *err)
{
	*out = is_off(value) ? NULL : value;
	for (size_t i = 0; *out != NULL && i < json_array_size(value); i++)
		if (!json_is_string(json_array_get(value, i)))
			*out = json_null();
	return *out == NULL || json_is_array(*out) ? M1_OK : malformed(err, key, "a list of names");
}

static m1_status
read_modules(const json_t *root, const char *key, module_set *out, m1_error *err)
{
	const json_t *value = json_object_get(root, key);

	if (!is_off(value) && json_is_string(value))
		return add_pattern(&out->expression, "(?:", json_string_value(value), ")", 0.0, err);
	return read_names(value, key, &out->ends, err);
}

/* An object of patterns, which match the end of a name from some dot on, and positive numbers. */
static m1_status
read_pattern_values(const json_t *root, const char *key, double most, bool whole, patterns *out, m1_error *err)
{
	json_t *values = json_object_get(root, key);
	const char *text;
	json_t *value;

	if (is_off(values))
		return M1_OK;
	if (!json_is_object(values))
		return malformed(err, key, "an object of names and numbers");
	json_object_foreach (values, text, value)
	{
		const double number = json_number_value(value);
		m1_status status;

		if (!json_is_number(value) || !(number > 0) || number > most || (whole && !json_is_integer(value)))
			return malformed(err, key,
							 whole ? "an object of names and ranks between 1 and 1024"
								   : "an object of names and positive numbers");
		if ((status = add_pattern(out, "(?:.*\\.)?(?:", text, ")", number, err)) != M1_OK)
			return status;
	}
	return M1_OK;
}

/* Where PEFT finds the number of a layer in a name: after the pattern, or after the last name that one follows. */
static m1_status
read_layers(m1_adapter_config *c, m1_error *err)
{
	const json_t *layers = json_object_get(c->root, "layers_to_transform");
	const json_t *named = json_object_get(c->root, "layers_pattern");
	m1_status status = M1_OK;

	if (is_off(layers))
		return M1_OK;
	for (size_t i = 0; i < json_array_size(layers); i++)
		if (!json_is_integer(json_array_get(layers, i)))
			return malformed(err, "layers_to_transform", "a number or a list of numbers");
	if (!json_is_integer(layers) && !json_is_array(layers))
		return malformed(err, "layers_to_transform", "a number or a list of numbers");
	c->layers = layers;
	if (is_off(named))
		return add_pattern(&c->layer_names, ".*\\.", "[^.]*", "\\.(\\d+)\\..*", 0.0, err);
	if (json_is_string(named))
		return add_pattern(&c->layer_names, ".*\\.(?:", json_string_value(named), ")\\.(\\d+)\\..*", 0.0, err);
	status = read_names(named, "layers_pattern", &named, err);
	for (size_t i = 0; status == M1_OK && i < json_array_size(named); i++)
		status = add_pattern(&c->layer_names, ".*\\.(?:", json_string_value(json_array_get(named, i)),
							 ")\\.(\\d+)\\..*", 0.0, err);
	return status;
}

static m1_status
read_numbers(m1_adapter_config *c, m1_error *err)
{
	const json_t *rank = json_object_get(c->root, "r");
	const json_t *alpha = json_object_get(c->root, "lora_alpha");

	if (!json_is_integer(rank) || json_integer_value(rank) < 1 || json_integer_value(rank) > M1_ADAPTER_MAX_RANK)
		return malformed(err, "r", "a rank between 1 and 1024");
	if (!json_is_number(alpha) || !(json_number_value(alpha) > 0))
		return malformed(err, "lora_alpha", "a positive number");
	c->rank = (int) json_integer_value(rank);
	c->alpha = json_number_value(alpha);
	c->rank_stabilized = json_is_true(json_object_get(c->root, "use_rslora"));
	return M1_OK;
}

/* ---- refusing ---- */

static m1_status
unsupported(m1_error *err, const char *key, const json_t *value)
{
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

	m1_fail(err, M1_E_UNSUPPORTED, M1_ADAPTER_CONFIG ": \"%.60s\" is not supported", key);
	m1_error_detail(err, "It is %.200s; it would change the results, and this version does not know how.",
					text != NULL ? text : "set");
	free(text);
	return M1_E_UNSUPPORTED;
}

/* How A and B began does not matter to what they are, unless the weights of the base were changed with them. */
static bool
leaves_base_alone(const json_t *value)
{
	static const char *const harmless[] = {"gaussian", "orthogonal", "eva"};

	if (json_is_boolean(value) || json_is_null(value))
		return true;
	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
		if (json_is_string(value) && strcmp(json_string_value(value), harmless[i]) == 0)
			return true;
	return false;
}

static bool
is_understood(const char *key)
{
	static const char *const read[] = {
		"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules",
		"modules_to_save", "layers_to_transform", "layers_pattern", "peft_type",
		/* of training, of other tools, or of features that have a switch of their own */
		"auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "lora_dropout",
		"peft_version", "megatron_config", "megatron_core", "qalora_group_size", "loftq_config", "eva_config",
		"corda_config", "runtime_config"};

	for (size_t i = 0; i < sizeof read / sizeof *read; i++)
		if (strcmp(read[i], key) == 0)
			return true;
	return false;
}

static m1_status
refuse_others(const m1_adapter_config *c, m1_error *err)
{
	const json_t *type = json_object_get(c->root, "peft_type");
	const char *key;
	json_t *value;

	if (!json_is_string(type))
		return malformed(err, "peft_type", "\"LORA\"");
	if (strcmp(json_string_value(type), "LORA") != 0)
		return unsupported(err, "peft_type", type);
	json_object_foreach (c->root, key, value)
	{
		if (strcmp(key, "init_lora_weights") == 0 ? leaves_base_alone(value) : is_understood(key) || is_off(value))
			continue;
		if (strcmp(key, "bias") == 0 && json_is_string(value) && strcmp(json_string_value(value), "none") == 0)
			continue;
		return unsupported(err, key, value);
	}
	return M1_OK;
}

/* ---- life ---- */

static m1_status
read_all(m1_adapter_config *c, m1_error *err)
{
	m1_status status;

	if ((status = refuse_others(c, err)) != M1_OK || (status = read_numbers(c, err)) != M1_OK ||
		(status = read_modules(c->root, "target_modules", &c->targets, err)) != M1_OK ||
		(status = read_modules(c->root, "exclude_modules", &c->excluded, err)) != M1_OK ||
		(status = read_names(json_object_get(c->root, "modules_to_save"), "modules_to_save", &c->saved, err)) !=
			M1_OK ||
		(status = read_layers(c, err)) != M1_OK ||
		(status = read_pattern_values(c->root, "rank_pattern", M1_ADAPTER_MAX_RANK, true, &c->ranks, err)) != M1_OK ||
		(status = read_pattern_values(c->root, "alpha_pattern", INFINITY, false, &c->alphas, err)) != M1_OK)
		return status;
	c->limits = pcre2_match_context_create(NULL);
	c->match = pcre2_match_data_create(2, NULL);
	if (c->limits == NULL || c->match == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
	pcre2_set_match_limit(c->limits, MATCH_STEPS);
	return M1_OK;
}

m1_status
m1_adapter_config_load(const char *dir, m1_adapter_config **out, m1_error *err)
{
	m1_adapter_config *c = calloc(1, sizeof *c);
	m1_status status;

	*out = NULL;
	if (c == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
	if ((status = m1_json_load_object(dir, M1_ADAPTER_CONFIG, &c->root, err)) != M1_OK ||
		(status = read_all(c, err)) != M1_OK)
	{
		m1_adapter_config_free(c);
		return status;
	}
	*out = c;
	return M1_OK;
}

void
m1_adapter_config_free(m1_adapter_config *c)
{
	if (c == NULL)
		return;
	free_patterns(&c->targets.expression);
	free_patterns(&c->excluded.expression);
	free_patterns(&c->layer_names);
	free_patterns(&c->ranks);
	free_patterns(&c->alphas);
	pcre2_match_context_free(c->limits);
	pcre2_match_data_free(c->match);
	json_decref(c->root);
	free(c);
}

/* ---- modules ---- */

/* Whether a name is `end`, or ends with it, after a dot if that is asked for. */
static bool
ends_with(const char *name, const char *end, bool after_dot)
{
	const size_t n = strlen(name);
	const size_t k = strlen(end);

	if (k > n || strcmp(name + n - k, end) != 0)
		return false;
	return k == n || !after_dot || name[n - k - 1] == '.';
}

static bool
any_end(const json_t *ends, const char *name, bool after_dot)
{
	for (size_t i = 0; i < json_array_size(ends); i++)
		if (ends_with(name, json_string_value(json_array_get(ends, i)), after_dot))
			return true;
	return false;
}

static m1_status
is_in(const m1_adapter_config *c, const module_set *set, const char *module, bool *yes, m1_error *err)
{
	*yes = any_end(set->ends, module, true);
	return set->expression.n > 0 ? matches(c, &set->expression.list[0], module, yes, err) : M1_OK;
}

static bool
holds_layer(const json_t *layers, json_int_t layer)
{
	if (json_is_integer(layers))
		return json_integer_value(layers) == layer;
	for (size_t i = 0; i < json_array_size(layers); i++)
		if (json_integer_value(json_array_get(layers, i)) == layer)
			return true;
	return false;
}

/* The number that a group of an expression has found; a pattern with groups of its own may have left it out. */
static bool
number_at(const char *module, PCRE2_SIZE at, json_int_t *number)
{
	char *end;

	if (at == PCRE2_UNSET)
		return false;
	*number = strtoll(module + at, &end, 10);
	return end != module + at;
}

/* Layers restrict lists of names only, and no module that is named in full. */
static m1_status
is_in_layers(const m1_adapter_config *c, const char *module, bool *yes, m1_error *err)
{
	m1_status status = M1_OK;
	json_int_t layer;

	*yes = c->layers == NULL || c->targets.expression.n > 0;
	for (size_t i = 0; i < json_array_size(c->targets.ends); i++)
		*yes = *yes || strcmp(json_string_value(json_array_get(c->targets.ends, i)), module) == 0;
	for (size_t i = 0; i < c->layer_names.n && !*yes; i++)
	{
		bool found;

		if ((status = matches(c, &c->layer_names.list[i], module, &found, err)) != M1_OK)
			return status;
		if (!found)
			continue;
		*yes = number_at(module, pcre2_get_ovector_pointer(c->match)[2], &layer) && holds_layer(c->layers, layer);
		break;
	}
	return status;
}

static m1_status
is_target(const m1_adapter_config *c, const char *module, bool *yes, m1_error *err)
{
	bool excluded;
	m1_status status = is_in(c, &c->excluded, module, &excluded, err);

	if (status == M1_OK)
		status = is_in(c, &c->targets, module, yes, err);
	*yes = status == M1_OK && *yes && !excluded && !any_end(c->saved, module, true);
	return status == M1_OK && *yes ? is_in_layers(c, module, yes, err) : status;
}

m1_status
m1_adapter_config_module(const m1_adapter_config *c, const char *module, m1_adapter_shape *shape, m1_whole *whole,
						 m1_error *err)
{
	bool target = false;
	double rank, alpha;
	m1_status status;

	*whole = any_end(c->saved, module, true)	? M1_WHOLE_YES
			 : any_end(c->saved, module, false) ? M1_WHOLE_MAYBE
												: M1_WHOLE_NO;
	if ((status = is_target(c, module, &target, err)) != M1_OK || !target ||
		(status = value_of(c, &c->ranks, module, c->rank, &rank, err)) != M1_OK ||
		(status = value_of(c, &c->alphas, module, c->alpha, &alpha, err)) != M1_OK)
		return status;
	shape->rank = (int) rank;
	shape->scale = (float) (alpha / (c->rank_stabilized ? sqrt(rank) : rank));
	return isfinite(shape->scale) ? M1_OK : malformed(err, "lora_alpha", "a number that a float can hold");
}
