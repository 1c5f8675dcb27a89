/*
 * forward.h - the model from token ids to logits, over any backend.
 */
#ifndef M1_MODEL_FORWARD_H
#define M1_MODEL_FORWARD_H

#include "model/model.h"

/* The inner norm's eps is part of the architecture, not of the config. */
#define M1_INNER_NORM_EPS 1e-6f

/* Allocates the activations for model->max_batch_tokens; called by m1_model_open. */
m1_status m1_forward_prepare(m1_model *model, m1_error *err);
/* Device memory that it takes. */
size_t m1_forward_bytes(const m1_model *model);
void m1_forward_free(m1_model *model);

/*
 * Runs one step: the batch's tokens through all layers, each segment continuing its state.
 * rows[0..n_rows) are the batch rows whose logits are wanted, ascending; logits [n_rows, vocab] on the host.
 * Several calls in a row with the segments' starts advanced give the same result as one call, to rounding.
 */
m1_status m1_forward(m1_model *model, const m1b_batch *batch, const int *rows, int n_rows, float *logits,
					 m1_error *err);

/*
 * The same in two parts, for n_rows of at most max_sequences: the first starts the step, whose logits stay on the
 * device until the next one; the others wait for it. Failures of the step are theirs to report.
 */
void m1_forward_start(m1_model *model, const m1b_batch *batch, const int *rows, int n_rows);
/* logits [n, vocab] of the wanted rows first .. first + n */
m1_status m1_forward_logits(m1_model *model, int first, int n, float *logits, m1_error *err);
/* Whether the device can choose tokens. */
bool m1_forward_samples(const m1_model *model);
/* Chooses them there; draws' rows count among the wanted ones. M1_E_UNSUPPORTED: not with this vocabulary. */
m1_status m1_forward_sample(m1_model *model, const m1b_draw *draws, int n, m1b_pick *picks, m1_error *err);

/* Whether the device can tell which experts tokens took; whether the next steps are to. false: memory ran out. */
bool m1_forward_can_keep_choices(const m1_model *m);
bool m1_forward_keep_choices(m1_model *m, bool keep);
/* to [layers, experts of a token]: of a row of the last step, which was to. */
void m1_forward_choices(const m1_model *m, int row, uint16_t *to);

#endif
