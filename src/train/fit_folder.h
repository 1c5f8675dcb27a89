/*
 * fit_folder.h - the folder of a training before its first checkpoint: what is copied of the model, or made of a
 * config. Only fit.c includes it.
 */
#ifndef M1_TRAIN_FIT_FOLDER_H
#define M1_TRAIN_FIT_FOLDER_H

#include "train/fit.h"

/* Makes the folder; it may be there, but for a model that is not to be replaced. */
m1_status m1_fit_folder_make(const m1_fit_options *o, m1_error *err);
/* Whether it has a training, and one of the kind that is to go on. */
m1_status m1_fit_folder_check(const m1_fit_options *o, m1_error *err);
/*
 * config.json and the tokenizer's files; nothing for an adapter, whose base has them. Of a model that is
 * trained again, they are those it had.
 */
m1_status m1_fit_folder_fill(const m1_fit_options *o, m1_error *err);
/*
 * Keeps other trainings out of the folder until *fd is closed, and removes what one that was killed has not finished.
 * M1_E_UNAVAILABLE when one is there; *fd is -1 then.
 */
m1_status m1_fit_folder_lock(const m1_fit_options *o, int *fd, m1_error *err);
/* Writes fresh weights. */
m1_status m1_fit_folder_initialise(const m1_fit_options *o, const m1_config *config, m1_error *err);
/* Removes what a training that is begun anew would take for its own. */
void m1_fit_folder_forget(const m1_fit_options *o);

#endif
