/*
 * fit.h - a training from files: a checkpoint, fresh weights or an adapter, examples, and steps until there are enough.
 * It leaves a checkpoint every so often, from which it goes on to the same bits.
 *
 * One thread, which runs the model.
 */
#ifndef M1_TRAIN_FIT_H
#define M1_TRAIN_FIT_H

#include "model/adapter_plan.h"
#include "model/quantize.h"
#include "train/examples.h"
#include "train/schedule.h"
#include "train/train.h"

/* What happened in a step. */
typedef struct m1_fit_step
{
	uint64_t step;	/* from 1 */
	uint64_t steps; /* of all */
	uint64_t epoch; /* from 0 */
	double loss;	/* cross entropy by the weights, without the auxiliary loss; NaN if it was none */
	double balance; /* the auxiliary loss; 0 when its coefficient is */
	double rate;
	double norm;		  /* of the gradient, before it was clipped */
	bool dropped;		  /* loss or gradient is no number: the weights are as before */
	uint64_t all_dropped; /* steps, since the training began */
	int64_t sequences;
	int64_t tokens;
	uint64_t all_tokens; /* since the training began, before it was last stopped, too */
	bool evaluated;
	double held_out_loss; /* if so */
} m1_fit_step;

typedef struct m1_fit_observer
{
	void *context;
	/* Of a checkpoint that could not be written, say: the training goes on. */
	void (*warn)(void *context, const m1_error *err);
	void (*begun)(void *context, const m1_example_counts *counts, size_t examples, size_t held_out, uint64_t step,
				  uint64_t steps);
	void (*step)(void *context, const m1_fit_step *s);
	/*
	 * Asked many times in a step, and while examples are read. false: it ends with M1_E_CANCELLED, and a checkpoint if
	 * the training has begun.
	 */
	bool (*goes_on)(void *context);
} m1_fit_observer;

typedef struct m1_fit_options
{
	const char *model; /* a folder; for an adapter a GGUF file, too; or NULL: from scratch, by config and tokenizer */
	const m1_adapter_plan *plan;	/* of an adapter to train instead of the weights; its seed is not read */
	const char *adapter;			/* a folder with one to begin with, instead of plan; NULL: none */
	m1_weight_format weight_format; /* of the weights that an adapter leaves as they are */
	const char *config;				/* a config.json */
	const char *tokenizer;			/* a folder with a tokenizer; NULL: none, lines have ids */
	m1b_dtype fresh_type;			/* of fresh weights in files */
	const char *out;				/* the folder, which is made if need be */
	bool replace;					/* a training that is there is begun anew */
	bool resume;					/* it goes on: its own model is taken */

	const char *const *files;
	int n_files;
	const char *system; /* of conversations that have none */
	float prompt_weight, answer_weight;
	m1_too_long too_long;
	int max_context; /* 0: the model's own */
	double held_out; /* share of the examples */

	size_t batch_tokens; /* of a step */
	uint64_t steps;		 /* 0: by epochs */
	int epochs;
	m1_schedule schedule; /* but for its steps */
	m1_adamw_options adamw;
	float balance; /* the auxiliary loss counts so much */
	uint64_t seed;
	int save_every;		/* steps; 0: at the end alone */
	int evaluate_every; /* steps; 0: at the end alone */

	const char *device; /* as m1_model_options */
	int threads;
	const char *isa;
	m1_fit_observer observer;
} m1_fit_options;

/* Whether an adapter is trained, and not the weights. */
static inline bool
m1_fit_adapts(const m1_fit_options *o)
{
	return o->plan != NULL || o->adapter != NULL;
}

m1_status m1_fit(const m1_fit_options *options, m1_error *err);

#endif
