/*
 * digest.h - which model it is, in 16 hexadecimal digits: an adapter, which is only of use with the weights that it was
 * trained on, names them by it.
 *
 * It covers the config and, of every weight, name, shape and 64 numbers at places that the name decides, as the floats
 * that they stand for. So it is the same however a checkpoint is cut into files, and takes one look at each weight
 * instead of all of a terabyte. A change of a few numbers elsewhere goes unnoticed; a training changes all of them. A
 * GGUF file that the converter made names the digest of what it was made of, which is its own then: quantized or not,
 * an adapter goes with both.
 */
#ifndef M1_MODEL_DIGEST_H
#define M1_MODEL_DIGEST_H

#include "files/checkpoint.h"
#include "model/config.h"
#include "model/source.h"

#define M1_DIGEST_SIZE 17					  /* bytes of it as text, the end among them */
#define M1_DIGEST_KEY "general.source.digest" /* in a GGUF file */

/* The error is that of a weight that cannot be found. */
m1_status m1_digest(const m1_source *source, const m1_config *config, const m1_checkpoint *checkpoint,
					char text[M1_DIGEST_SIZE], m1_error *err);

#endif
