/* nano.h - the tokenizer of the bundled model, which is opened once. */
#ifndef M1_FUZZ_NANO_H
#define M1_FUZZ_NANO_H

#include "fuzz.h"
#include "text/tokenizer.h"

#define NANO "models/m1-nano"
#define NANO_ROWS 1600

const m1_tokenizer *nano_tokenizer(void);

#endif
