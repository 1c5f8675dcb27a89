/*
 * corrections.h - annotations that somebody has changed by hand (corrections.c).
 */
#ifndef M1PG_CORRECTIONS_H
#define M1PG_CORRECTIONS_H

#include "pg/m1pg.h"

#include "utils/array.h"

/* Both need an SPI connection. `wrong` is what the target held, and `prompt` what it was the answer to. */
extern void m1pg_note_correction(int annotator_id, ArrayType *key, const char *prompt, char *wrong);
/* The row is annotated anew, or to be, so that nothing of it is a correction. */
extern void m1pg_forget_correction(int annotator_id, ArrayType *key);

#endif							/* M1PG_CORRECTIONS_H */
