/*
 * fit_folder.h - the folder of a training before its first checkpoint: what is copied of the model, or made of a
 * config. Only fit.c includes it.
 */
#ifndef M1_TRAIN_FIT_FOLDER_H
#define M1_TRAIN_FIT_FOLDER_H

#include "files/new_file.h"
#include "train/fit.h"

/* Makes the folder; it may be there, but for a model that is not to be replaced. */
m1_status m1_fit_folder_make(const m1_fit_options *o, m1_error *err);
/* Whether it has a training, and one of the kind that is to go on. */
m1_status m1_fit_folder_check(const m1_fit_options *o, m1_error *err);
/*
 * Where a training has what it begins with: its own folder when it goes on, the model's where an adapter is trained,
 * and else a folder inside its own, which m1_fit_folder_fill makes.
 */
const char *m1_fit_folder_beginning(const m1_fit_options *o, char room[M1_MAX_PATH]);
/*
 * config.json and the tokenizer's files, of the model or of the options, into the folder of the beginning; nothing
 * where that is another's. What the training's folder has stays.
 */
m1_status m1_fit_folder_fill(const m1_fit_options *o, m1_error *err);
/* Writes fresh weights there. */
m1_status m1_fit_folder_initialise(const m1_fit_options *o, const m1_config *config, m1_error *err);
/* Before the first checkpoint of a training that was begun: removes what it would take for its own. */
void m1_fit_folder_forget(const m1_fit_options *o);
/* Once that has its weights: gives its config and tokenizer their names. */
m1_status m1_fit_folder_settle(const m1_fit_options *o, m1_error *err);
/* Removes the folder of the beginning, and what is in it. */
void m1_fit_folder_clean(const m1_fit_options *o);
/*
 * Keeps other trainings out of the folder until *fd is closed, and removes what one that was killed has not finished.
 * M1_E_UNAVAILABLE when one is there; *fd is -1 then.
 */
m1_status m1_fit_folder_lock(const m1_fit_options *o, int *fd, m1_error *err);

#endif
