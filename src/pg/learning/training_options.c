/*
 * training_options.c
 *	  The options of a training, as its row holds them, and the requests that are
 *	  made of them.
 */
#include "pg/learning/training.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

bool
m1pg_training_find_method(const char *name, M1Method *method)
{
	static const char *const names[] = {"sft", "cispo", "grpo", "dapo", "dr_grpo"};

	for (size_t i = 0; i < lengthof(names); i++)
		if (strcmp(names[i], name) == 0)
		{
			*method = (M1Method) i;
			return true;
		}
	return false;
}

/* NULL = there is none. */
static JsonbValue *
option(Jsonb *json, const char *name)
{
	JsonbValue *v = getKeyJsonValueFromContainer(&json->root, name, strlen(name), NULL);

	return v == NULL || v->type == jbvNull ? NULL : v;
}

static void
check_there(bool there, const char *name)
{
	if (!there)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("minimax_m1: the training has no %s", name),
				 errdetail("Another version of the extension has queued it."),
				 errhint("Drop the training, and call train() again.")));
}

static double
number(Jsonb *json, const char *name)
{
	JsonbValue *v = option(json, name);

	check_there(v != NULL && v->type == jbvNumeric, name);
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(v->val.numeric)));
}

/* A string, or JSON as its text; NULL = there is none. */
static char *
word(Jsonb *json, const char *name)
{
	JsonbValue *v = option(json, name);

	if (v == NULL)
		return NULL;
	if (v->type == jbvString)
		return pnstrdup(v->val.string.val, v->val.string.len);
	return JsonbToCString(NULL, &JsonbValueToJsonb(v)->root, -1);
}

static void
read_form(Jsonb *json, M1TrainingOptions *o)
{
	static const struct
	{
		const char *name;
		m1w_constraint constraint;
	}			forms[] = {
		{"choices", M1W_CONSTRAINT_CHOICES},
		{"json_schema", M1W_CONSTRAINT_JSON_SCHEMA},
		{"regex", M1W_CONSTRAINT_REGEX}
	};

	for (size_t i = 0; i < lengthof(forms); i++)
		if ((o->form = word(json, forms[i].name)) != NULL)
		{
			o->constraint = forms[i].constraint;
			return;
		}
}

void
m1pg_training_read_options(Jsonb *json, M1TrainingOptions *o)
{
	char	   *errors = word(json, "reward_errors");

	check_there(errors != NULL, "reward_errors");
	memset(o, 0, sizeof *o);
	o->group_size = (int) number(json, "group_size");
	o->prompts_per_step = (int) number(json, "prompts_per_step");
	o->updates_per_step = (int) number(json, "updates_per_step");
	o->is_cap = (float) number(json, "is_cap");
	o->clip_low = (float) number(json, "clip_low");
	o->clip_high = (float) number(json, "clip_high");
	o->kl_coef = (float) number(json, "kl_coef");
	o->learning_rate = (float) number(json, "learning_rate");
	o->rank = (int) number(json, "rank");
	o->max_tokens = (int) number(json, "max_tokens");
	o->thinking_budget = (int) number(json, "thinking_budget");
	o->length_penalty = (int) number(json, "length_penalty");
	o->drop_solved = (int) number(json, "drop_solved");
	o->seed = (uint64) number(json, "seed");
	o->temperature = (float) number(json, "temperature");
	o->evaluate_every = (int) number(json, "evaluate_every");
	o->reward_timeout = (int) number(json, "reward_timeout");
	o->request_timeout = (int) number(json, "request_timeout");
	o->system_prompt = word(json, "system_prompt");
	o->adapter = word(json, "adapter");
	o->reward_errors = strcmp(errors, "zero") == 0 ? M1_REWARD_ERRORS_ZERO :
		strcmp(errors, "skip") == 0 ? M1_REWARD_ERRORS_SKIP : M1_REWARD_ERRORS_FAIL;
	read_form(json, o);
}

void
m1pg_training_request(const M1TrainingOptions *o, const M1Example *example, m1w_generate *g)
{
	memset(g, 0, sizeof *g);
	g->max_tokens = o->max_tokens;
	g->thinking_budget = o->thinking_budget;
	g->temperature = o->temperature;
	/* a nucleus would be a mask that the training does not know */
	g->top_p = 1.0f;
	g->keep = 1;
	if (o->system_prompt != NULL)
		g->system = m1pg_to_utf8(o->system_prompt, strlen(o->system_prompt));
	if (o->form != NULL)
	{
		g->constraint = o->constraint;
		g->constraint_text = m1pg_to_utf8(o->form, strlen(o->form));
	}
	m1pg_example_request(example, g);
}
