/*
 * merge.h - a model with an adapter merged into its weights, written as a model of its own: a GGUF file, or a folder
 * with a checkpoint. Weights stay of the types that they are stored in, and are rounded to them once; those of an
 * F8_E4M3 checkpoint, whose scales would have to be chosen anew, become BF16.
 *
 * Streaming: memory is bounded by the adapter and one chunk of a tensor, whatever the model's size.
 */
#ifndef M1_MODEL_MERGE_H
#define M1_MODEL_MERGE_H

#include "model/convert.h"

/*
 * options->out is a GGUF file if its name ends in .gguf; else a folder, which must not exist, and options->format
 * M1_WEIGHTS_STORED. options->adapter is the one to merge. On failure, and when cancelled, nothing is left behind.
 */
m1_status m1_merge(const m1_convert_options *options, m1_error *err);

#endif
