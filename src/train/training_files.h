/*
 * training_files.h - the folder that a training leaves: model.safetensors or an adapter's files, which are served, and
 * training.safetensors, from which the training goes on to the same bits: what is trained as fp32, what AdamW keeps of
 * each, and the place.
 *
 * Each replaces the one that was there only when it is whole, training.safetensors last: where there is a training,
 * there is what it has made. Called by the thread that trains, between two steps.
 */
#ifndef M1_TRAIN_TRAINING_FILES_H
#define M1_TRAIN_TRAINING_FILES_H

#include "files/safetensors_writer.h"
#include "train/batches.h"
#include "train/train.h"

#define M1_TRAINING_FILE "training.safetensors"
#define M1_MODEL_FILE "model.safetensors"

/* How far a training is, and of what. */
typedef struct m1_training_place
{
	uint64_t step; /* steps that are done */
	m1_batch_place batch;
	int64_t updates; /* steps that changed the weights */
	uint64_t tokens; /* of all steps */
	/* what must be the same when it goes on */
	uint64_t digest; /* of the examples */
	uint64_t seed;
	uint64_t batch_tokens;
	double held_out;
	int weight_format; /* an m1_weight_format, of what an adapter leaves as it is */
} m1_training_place;

/* Whether the folder has a training. */
bool m1_training_exists(const char *dir);

/* Writes what is served. Without an adapter, tensors are stored as in the model's checkpoint. */
m1_status m1_training_save_made(const char *dir, const m1_trainer *t, const m1_model *model, const m1_adapter *adapter,
								m1_error *err);
/* Writes what the training goes on from. */
m1_status m1_training_save(const char *dir, const m1_trainer *t, const m1_training_place *place, m1_error *err);

/* The n numbers of a parameter's array, wherever they are, as the next ones of a file. */
m1_status m1_training_write(const m1_trainer *t, const float *from, size_t n, m1_safetensors_writer *w, m1_error *err);

/* Reads the place alone. */
m1_status m1_training_place_of(const char *dir, m1_training_place *place, m1_error *err);
/* Sets the trainer's parameters as they were. The error names the tensor that is missing or of another shape. */
m1_status m1_training_load(const char *dir, m1_trainer *t, m1_error *err);

#endif
