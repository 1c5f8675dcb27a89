/* tensors.h - what must hold of the tensors of an open checkpoint. */
#ifndef M1_FUZZ_TENSORS_H
#define M1_FUZZ_TENSORS_H

#include "files/checkpoint.h"
#include "fuzz.h"

/* The files have so many bytes together. Each byte of each tensor is read. */
void check_tensors(const m1_checkpoint *c, size_t bytes);

#endif
