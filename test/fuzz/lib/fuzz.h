/*
 * fuzz.h - what the fuzz targets share. A target is a file of test/fuzz that defines fuzz_one; it becomes a program with
 * libFuzzer (make fuzz), and one with replay.c, which any compiler builds (make test).
 *
 * Inputs are either taken as they are or drive a generator that makes something well formed of them: raw bytes would
 * hardly ever get past a parser. One thread.
 */
#ifndef M1_FUZZ_H
#define M1_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/status.h"

/* What is left of an input. When nothing is, choices come from a random source that the input has seeded. */
typedef struct fuzz_input
{
	const uint8_t *at;
	size_t left;
	uint64_t random;
} fuzz_input;

/* A target's own: one execution. What must hold is checked by fuzz_check. */
void fuzz_one(fuzz_input *in);

/* Says what does not hold, and ends the process so that the input is kept. */
#define fuzz_check(condition, ...) ((condition) ? (void) 0 : fuzz_fail(__FILE__, __LINE__, __VA_ARGS__))
_Noreturn void fuzz_fail(const char *file, int line, const char *fmt, ...) M1_PRINTF(3, 4);
/* An error that a user may see: a status that is not a bug's, and a message. */
void fuzz_check_error(m1_status status, const m1_error *err);

/* ---- choices ---- */

/* A number below n; n at most 65536. 0 when the input is used up: generators end there. */
uint32_t fuzz_below(fuzz_input *in, uint32_t n);
/* The same, with random numbers once the input is used up. */
uint32_t fuzz_random_below(fuzz_input *in, uint32_t n);
uint64_t fuzz_u64(fuzz_input *in);
/* At most n bytes. */
m1_slice fuzz_take(fuzz_input *in, size_t n);
m1_slice fuzz_rest(fuzz_input *in);
/* The bytes with everything that is no UTF-8, and NUL, as U+FFFD. The caller frees it. */
m1_buf fuzz_text(m1_slice bytes);
/* One of the strings of a NULL-terminated list. */
const char *fuzz_one_of(fuzz_input *in, const char *const *list);

/* ---- files ---- */

/* A folder of this process alone, in memory; it is removed when the process ends in peace. */
const char *fuzz_folder(void);
void fuzz_write_file(const char *name, m1_slice bytes);
void fuzz_remove_file(const char *name);

#endif
