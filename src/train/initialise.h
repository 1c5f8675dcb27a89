/*
 * initialise.h - weights of a model that has learnt nothing: Xavier's, as MiniMax-Text-01's were. Where residuals are
 * scaled behind a norm, values, outputs and experts are smaller by DeepNorm's beta = (8 N)^(-1/4), N the number of
 * layers. Norms are 1.
 *
 * Stateless; any thread. The same seed gives the same bits on every machine.
 */
#ifndef M1_TRAIN_INITIALISE_H
#define M1_TRAIN_INITIALISE_H

#include "model/config.h"
#include "blocks/blocks.h"

/* Writes a safetensors file of the model's weights: the router's as F32, the others as `type`. */
m1_status m1_initialise(const m1_config *config, m1b_dtype type, uint64_t seed, const char *path, m1_error *err);

#endif
