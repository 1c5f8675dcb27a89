/*
 * train.h - a model that learns: losses and gradients over the weights that it serves with, by the same forward pass,
 * and the optimizer that changes them.
 *
 * A trainer makes the model's weights fp32, which are the master copies; or it trains an adapter, and leaves them as
 * they are. Serving and learning see each change at once.
 * Called by the thread that runs the model. Any order of a batch's sequences, any size of its pieces and any number of
 * threads give the same bits; sharing beginnings changes them as rounding does.
 */
#ifndef M1_TRAIN_TRAIN_H
#define M1_TRAIN_TRAIN_H

#include "model/model.h"
#include "train/losses.h"

typedef struct m1_trainer m1_trainer;

typedef struct m1_trainer_options
{
	size_t
		memory; /* bytes that activations may take; 0: a quarter of what weights, KV pages, gradients and AdamW leave */
	int rows;	/* tokens that are computed together; 0: as many as suit, a few thousand */
	bool recompute;		 /* keep only the layers' inputs, even where there is room for more: for tests */
	bool gives_back;	 /* the activations' memory after each batch: for trainers that wait most of the time */
	m1_adapter *adapter; /* is trained, and nothing else; it must outlive the trainer. NULL: all weights are */
} m1_trainer_options;

/*
 * One tensor that is trained. The arrays are the device's: m1_trainer_pass reads them, m1_trainer_put writes them
 * between two steps. On the CPU anybody may.
 */
typedef struct m1_parameter
{
	char name[128];	 /* as safetensors checkpoints call it */
	int rows, cols;	 /* cols 0: a vector, which weight decay leaves alone */
	bool transposed; /* an adapter's B, which files have as [cols, rows] */
	size_t n;		 /* elements */
	float *value;
	float *gradient; /* of the last batch */
	float *m, *v;	 /* of AdamW */
} m1_parameter;

/*
 * M1_E_UNSUPPORTED on devices that cannot learn and, if all weights are to be trained, with such that are not floats.
 * The model must be closed after the trainer; it keeps its fp32 weights.
 */
m1_status m1_trainer_open(m1_model *model, const m1_trainer_options *options, m1_trainer **out, m1_error *err);
void m1_trainer_close(m1_trainer *t);

/* Is given some numbers; what it returns ends the reading. */
typedef m1_status (*m1_numbers_fn)(void *context, const float *numbers, size_t n, m1_error *err);
/* Passes the n numbers of a parameter's array on, some at a time. */
m1_status m1_trainer_pass(const m1_trainer *t, const float *from, size_t n, m1_numbers_fn fn, void *context,
						  m1_error *err);
/* From the host, maybe unaligned. */
void m1_trainer_put(m1_trainer *t, float *to, const void *from, size_t n);

/* Every tensor once, in order of their names; a tied head is the embedding. */
m1_parameter *m1_trainer_parameters(const m1_trainer *t, size_t *n);

/*
 * Makes m and v, zeros, which are NULL before; the first update does if nobody has. To fill them when a training goes
 * on from a checkpoint.
 */
m1_status m1_trainer_moments(m1_trainer *t, m1_error *err);

/* How often the optimizer has changed them; set when a training goes on from a checkpoint. */
int64_t m1_trainer_updates(const m1_trainer *t);
void m1_trainer_set_updates(m1_trainer *t, int64_t updates);
/* Updates that were dropped because a loss or a gradient was not sound; in a row, and of all. */
int m1_trainer_dropped_in_a_row(const m1_trainer *t);
int64_t m1_trainer_dropped(const m1_trainer *t);

/* What a batch was like. */
typedef struct m1_batch_result
{
	double loss;		   /* with the auxiliary loss times its coefficient */
	double balance;		   /* the auxiliary loss itself; 0 when its coefficient is */
	double most_load;	   /* largest share of an expert in a layer's choices, times the number of experts */
	int64_t tokens;		   /* of all sequences */
	int64_t rows;		   /* that were computed for them, fewer where beginnings are shared */
	int64_t learned;	   /* tokens of completions */
	int64_t predicted;	   /* of those, the ones whose logits were needed */
	int64_t clipped;	   /* of those, beyond cap or trust region */
	int64_t rerouted;	   /* rows, of each layer, whose replayed experts are not those that the router chooses now */
	double entropy;		   /* mean over the predicted ones */
	double old_difference; /* largest |logprob - old_logprob| among them, where there are old ones */
	double old_mean;	   /* mean of it */
} m1_batch_result;

/* Beyond this, a loss or a norm says nothing but that the weights are damaged. */
#define M1_MOST_MEASURED 1e30

/* Whether all that was measured is a number, and none beyond the most. */
bool m1_batch_is_sound(const m1_batch_result *result);

/*
 * The loss and its gradient by every parameter, in m1_parameter.gradient. Whole in one call, or in pieces: begin, and
 * piece until *done. A batch that cannot be computed is refused by begin, and nothing is changed: M1_E_INVALID_ARGUMENT
 * for a token outside the vocabulary, M1_E_CONTEXT_OVERFLOW for a sequence that is too long, M1_E_NO_MEMORY with the
 * numbers for one whose activations do not fit.
 */
m1_status m1_trainer_gradients(m1_trainer *t, const m1_sequence *sequences, int n, const m1_objective *objective,
							   m1_batch_result *result, m1_error *err);
/* The same without gradients: log-probabilities, entropies and a held-out loss. */
m1_status m1_trainer_evaluate(m1_trainer *t, const m1_sequence *sequences, int n, const m1_objective *objective,
							  m1_batch_result *result, m1_error *err);

m1_status m1_trainer_begin(m1_trainer *t, const m1_sequence *sequences, int n, const m1_objective *objective,
						   bool gradients, m1_error *err);
/* About one layer of the tokens that are computed together. */
m1_status m1_trainer_piece(m1_trainer *t, bool *done, m1_batch_result *result, m1_error *err);
/* Gives up the batch that was begun, if any. Its sequences are not used any more. */
void m1_trainer_abandon(m1_trainer *t);

/* Bytes of activations that a batch takes at least, and with as many tokens together as it will. */
typedef struct m1_train_memory
{
	size_t least;
	size_t planned;
	int rows;		/* of the most tokens together */
	bool recompute; /* only the layers' inputs are kept */
} m1_train_memory;

m1_status m1_trainer_plan(m1_trainer *t, const m1_sequence *sequences, int n, const m1_objective *objective,
						  m1_train_memory *memory, m1_error *err);

typedef struct m1_adamw_options
{
	float rate;
	float beta1, beta2, eps;
	float weight_decay; /* of matrices */
	float clip;			/* of the gradient's norm; 0: none */
} m1_adamw_options;

/* M1's: 0.9, 0.95, 1e-15; decay 0.1, clip 1. */
m1_adamw_options m1_adamw_defaults(float rate);

typedef struct m1_update
{
	double norm;  /* of the gradient, before it was clipped */
	bool dropped; /* what was measured or the gradient is not sound: nothing was changed */
} m1_update;

/* Changes the parameters by the gradients of the last batch, whose result it is given. */
m1_status m1_trainer_update(m1_trainer *t, const m1_adamw_options *options, const m1_batch_result *batch,
							m1_update *update, m1_error *err);

#endif
