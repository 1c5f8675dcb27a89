/*
 * trainer.h - what the files of src/train share: parameters and gradients by layer, the activations that are kept, and
 * where a batch in the making stands. Nobody else includes it.
 */
#ifndef M1_TRAIN_TRAINER_H
#define M1_TRAIN_TRAINER_H

#include "backend/learning.h"
#include "train/micro.h"
#include "train/train.h"

/* Gradients, as m1_layer has the weights; those of a layer's other kind are NULL. */
typedef struct m1_layer_gradients
{
	float *input_norm, *post_norm;
	float *qkv, *output_gate, *inner_norm; /* lightning */
	float *q, *k, *v;					   /* softmax */
	float *out;
	float *router;
	float **w1, **w2, **w3; /* [E] */
} m1_layer_gradients;

/* One of the products of a layer, or the head's, and where its gradients go; NULL for those that there are not. */
typedef struct m1_projection
{
	const m1b_matrix *matrix;
	float *gradient;
	const m1b_adapted *adapted;
	const m1b_adapted_gradient *adapted_gradient;
} m1_projection;

/* What a layer's backward pass needs of its forward pass; T rows. */
typedef struct m1_tape
{
	float *h;		  /* [T, d] RMS of the layer's input */
	float *y;		  /* [T, d] alpha h + beta attention, what the second norm reads */
	float *g;		  /* [T, d] RMS of y */
	float *qkv;		  /* lightning: [T, H, 3, D] before SiLU; softmax: q, k (rotated), v one after the other */
	float *gate;	  /* [T, H * D] lightning */
	float *attention; /* [T, H * D] */
	float *states;	  /* lightning, m1b_spans.n_states of them */
	float *lse;		  /* [T, H] softmax */
	m1b_moe_kept moe;
} m1_tape;

/* Of one micro-batch, in device memory; made by m1_lay_out. */
typedef struct m1_training_activations
{
	float **x;	   /* [layers + 1] of [T, d]: the input of each layer, and what the final norm reads */
	m1_tape *tape; /* [layers]; with recompute all of them are the same arrays */
	/* work memory */
	float *qkv;		  /* [T, 3 * H * D] after SiLU */
	float *dqkv;	  /* [T, 3 * H * D] */
	float *attention; /* [T, H * D] */
	float *dattention;
	float *dgate;
	float *branch;	/* [T, d] */
	float *dnormed; /* [T, d] */
	float *dx;		/* [T, d] the gradient by the current layer's output, then by its input */
	float *dnext;	/* [T, d] */
	/* of a chunk of targets */
	float *head_sum; /* [chunk, d] */
	float *head_in;
	float *dhead_in;
	float *dhead_sum;
	float *logits; /* [chunk, vocab] */
} m1_training_activations;

typedef enum m1_phase
{
	M1_PHASE_LOAD, /* forward, only to count the experts' choices */
	M1_PHASE_FORWARD,
	M1_PHASE_HEAD,
	M1_PHASE_BACKWARD,
} m1_phase;

/* A batch in the making. */
typedef struct m1_progress
{
	bool running;
	bool gradients;
	bool load_first; /* a pass over all micro-batches counts the experts' choices before the one that learns */
	m1_objective objective;
	m1_ordered ordered;
	m1_micro micro;
	int unit;	 /* first of the micro-batch */
	int n_units; /* of it */
	int rows;	 /* at most, of a micro-batch of several units */
	bool recompute;
	m1_phase phase;
	int step; /* layers, or chunks of the head, done in this phase */
	m1_batch_result result;
} m1_progress;

#define M1_MAX_TARGETS 256 /* whose logits are held at a time */

struct m1_trainer
{
	m1_model *model;
	m1b_backend *backend;
	const m1b_learning *ops;
	m1_trainer_options options;

	m1_parameter *parameters; /* in order of their names */
	size_t n_parameters;
	size_t cap_parameters;
	m1_layer_gradients *layers;
	m1_adapter *adapter;					  /* NULL: all weights are trained */
	m1b_adapted_gradient **adapted_gradients; /* [layers][M1_ROLES], as m1_adapter_change has the changes */
	int first_layer;						  /* below which nothing is trained */
	float *final_norm;
	float *embed;
	float *head; /* of a tied head: its own, which is added to embed's at the end; these are NULL with an adapter */
	int64_t updates;
	int64_t dropped;
	int dropped_in_a_row;

	size_t memory; /* bytes that activations may take */
	float *arena;
	size_t arena_floats;
	int target_chunk; /* M1_MAX_TARGETS, or as many as the model takes in a step */
	m1_training_activations a;
	double *chosen;		 /* [layers, E] for the auxiliary loss: choices of each expert */
	double *probability; /* [layers, E] */
	float *balance;		 /* [E] */
	m1_progress progress;
};

/* parameters.c */
/* Makes every weight fp32 and a parameter with a gradient; or those of the adapter, if there is one. */
m1_status m1_parameters_create(m1_trainer *t, m1_error *err);
void m1_parameters_free(m1_trainer *t);
/* Room for one more parameter, whose gradient is taken. */
m1_status m1_parameters_add(m1_trainer *t, const m1_parameter *p, float **gradient, m1_error *err);
/* Of roles that are not the experts'. */
m1_projection m1_train_projection(m1_trainer *t, m1_role role, int layer);

/* adapter_parameters.c */
m1_status m1_adapter_parameters_create(m1_trainer *t, m1_error *err);
void m1_adapter_parameters_free(m1_trainer *t);
/* As m1_adapter_change; NULL where nothing is changed. */
const m1b_adapted_gradient *m1_adapted_gradients(const m1_trainer *t, m1_role role, int layer);

/* activations.c */
m1_status m1_activations_prepare(m1_trainer *t, m1_error *err);
void m1_activations_free(m1_trainer *t);
/* Sets t->a to places in base for a micro-batch; returns the floats that it takes. base may be NULL. */
size_t m1_activations_lay_out(m1_trainer *t, const m1b_spans *spans, bool recompute, float *base);

/* backward.c */
void m1_train_embed(m1_trainer *t);
void m1_train_layer_forward(m1_trainer *t, int layer);
void m1_train_layer_backward(m1_trainer *t, int layer);
/* The targets of one chunk. */
void m1_train_head(m1_trainer *t, int chunk);
void m1_train_embed_backward(m1_trainer *t);

#endif
