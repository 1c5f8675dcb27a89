/*
 * test_safetensors.c - safetensors files that are written: what is read from them is what went in, and a failure leaves
 * what was there before.
 */
#define _GNU_SOURCE /* setrlimit */
#include "testing.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "files/checkpoint.h"
#include "files/new_file.h"
#include "files/safetensors_writer.h"

#define DIR_NAME TEST_BUILD "/test_safetensors"
#define FILE_NAME "out.safetensors"

static m1_safetensors_writer *
create(m1_error *err)
{
	m1_safetensors_writer *w;

	mkdir("build", 0777);
	mkdir(TEST_BUILD, 0777);
	mkdir(DIR_NAME, 0777);
	assert_int_equal(m1_safetensors_writer_create(DIR_NAME "/" FILE_NAME, true, &w, err), M1_OK);
	return w;
}

static int
files_in_folder(void)
{
	DIR *dir = opendir(DIR_NAME);
	int n = 0;

	assert_non_null(dir);
	for (const struct dirent *e; (e = readdir(dir)) != NULL;)
		n += e->d_name[0] != '.';
	closedir(dir);
	return n;
}

/* A file of one tensor that holds x. */
static void
write_one(float x)
{
	m1_error err;
	m1_safetensors_writer *w = create(&err);

	m1_safetensors_write_tensor(w, "x", M1B_F32, (const int64_t[]){1}, 1);
	assert_ok(m1_safetensors_writer_begin(w, &err));
	assert_ok(m1_safetensors_writer_floats(w, &x, 1, &err));
	assert_ok(m1_safetensors_writer_finish(w, &err));
	m1_safetensors_writer_free(w);
}

static float
read_one(void)
{
	m1_checkpoint *c;
	m1_error err;
	float x;

	assert_ok(m1_checkpoint_open_file(DIR_NAME, FILE_NAME, &c, &err));
	memcpy(&x, m1_checkpoint_find(c, "x")->data, sizeof x);
	m1_checkpoint_close(c);
	return x;
}

static void
assert_tensor(const m1_checkpoint *c, const char *name, m1b_dtype type, int dims, size_t bytes)
{
	const m1_tensor *t = m1_checkpoint_find(c, name);

	assert_non_null(t);
	assert_true(t->usable);
	assert_int_equal(t->type, type);
	assert_int_equal(t->dims, dims);
	assert_int_equal(t->bytes, bytes);
}

static void
test_round_trip(void **state)
{
	enum
	{
		N = 40000 /* more than is converted at a time */
	};
	float *x = malloc(N * sizeof *x);
	float *back = malloc(N * sizeof *back);
	uint64_t seed = 1;
	m1_error err;
	m1_safetensors_writer *w = create(&err);
	m1_checkpoint *c;

	(void) state;
	assert_true(x != NULL && back != NULL);
	for (int i = 0; i < N; i++)
		x[i] = test_random_float(&seed);
	m1_safetensors_write_metadata(w, "format", "pt");
	m1_safetensors_write_metadata(w, "quoted", "a \"word\"\n");
	m1_safetensors_write_tensor(w, "whole", M1B_F32, (const int64_t[]){N / 100, 100}, 2);
	m1_safetensors_write_tensor(w, "none", M1B_F32, (const int64_t[]){0, 7}, 2);
	m1_safetensors_write_tensor(w, "scalar", M1B_F32, NULL, 0);
	m1_safetensors_write_tensor(w, "short", M1B_BF16, (const int64_t[]){N}, 1);
	m1_safetensors_write_tensor(w, "half", M1B_F16, (const int64_t[]){3}, 1);
	assert_ok(m1_safetensors_writer_begin(w, &err));
	assert_ok(m1_safetensors_writer_floats(w, x, 17, &err)); /* in pieces */
	assert_ok(m1_safetensors_writer_data(w, x + 17, (N - 17) * sizeof *x, &err));
	assert_ok(m1_safetensors_writer_floats(w, x, 1, &err));
	assert_ok(m1_safetensors_writer_floats(w, x, N, &err));
	assert_ok(m1_safetensors_writer_floats(w, (const float[]){1.0f, -0.1f, 1e9f}, 3, &err));
	assert_ok(m1_safetensors_writer_finish(w, &err));
	m1_safetensors_writer_free(w);

	assert_ok(m1_checkpoint_open_file(DIR_NAME, FILE_NAME, &c, &err));
	assert_int_equal(m1_checkpoint_tensors(c), 5);
	assert_tensor(c, "whole", M1B_F32, 2, N * sizeof *x);
	assert_tensor(c, "none", M1B_F32, 2, 0);
	assert_tensor(c, "scalar", M1B_F32, 0, sizeof *x);
	assert_tensor(c, "short", M1B_BF16, 1, N * 2);
	assert_tensor(c, "half", M1B_F16, 1, 6);
	/* the mapping begins at a page: the file's data is where memory is aligned */
	assert_int_equal((uintptr_t) m1_checkpoint_find(c, "whole")->data % 64, 0);
	assert_memory_equal(m1_checkpoint_find(c, "whole")->data, x, N * sizeof *x);
	m1b_dequantize(M1B_BF16, m1_checkpoint_find(c, "short")->data, N, back);
	for (int i = 0; i < N; i++)
		assert_true(fabsf(back[i] - x[i]) <= fabsf(x[i]) / 256.0f);
	m1b_dequantize(M1B_F16, m1_checkpoint_find(c, "half")->data, 3, back);
	assert_true(back[0] == 1.0f && fabsf(back[1] + 0.1f) < 1e-4f && isinf(back[2]));
	m1_checkpoint_close(c);
	free(x);
	free(back);
}

static void
test_metadata_is_json(void **state)
{
	static const char wanted[] = "{\"__metadata__\":{\"a\":\"\\\"1\\\"\"},\"x\":{\"dtype\":\"F32\",\"shape\":[1],"
								 "\"data_offsets\":[0,4]}}";
	char file[512];
	m1_error err;
	m1_safetensors_writer *w = create(&err);
	FILE *f;
	size_t n;

	(void) state;
	m1_safetensors_write_metadata(w, "a", "\"1\"");
	m1_safetensors_write_tensor(w, "x", M1B_F32, (const int64_t[]){1}, 1);
	assert_ok(m1_safetensors_writer_begin(w, &err));
	assert_ok(m1_safetensors_writer_floats(w, (const float[]){0.5f}, 1, &err));
	assert_ok(m1_safetensors_writer_finish(w, &err));
	m1_safetensors_writer_free(w);
	f = fopen(DIR_NAME "/" FILE_NAME, "rb");
	assert_non_null(f);
	n = fread(file, 1, sizeof file, f);
	fclose(f);
	assert_int_equal(n % 64, 4);
	assert_int_equal((unsigned char) file[0], n - 4 - 8);
	assert_memory_equal(file + 8, wanted, sizeof wanted - 1);
	assert_int_equal(file[n - 5], ' ');
}

/* Whatever is told too much, too little or twice is a bug of the caller, and no file. */
static void
test_misuse(void **state)
{
	m1_error err;
	m1_safetensors_writer *w;

	(void) state;
	write_one(1.0f);
	w = create(&err);
	m1_safetensors_write_tensor(w, "x", M1B_F32, (const int64_t[]){2}, 1);
	assert_ok(m1_safetensors_writer_begin(w, &err));
	assert_int_equal(m1_safetensors_writer_floats(w, (const float[]){1, 2, 3}, 3, &err), M1_E_INTERNAL);
	assert_ok(m1_safetensors_writer_floats(w, (const float[]){1}, 1, &err));
	assert_int_equal(m1_safetensors_writer_finish(w, &err), M1_E_INTERNAL);
	m1_safetensors_writer_free(w);

	w = create(&err);
	m1_safetensors_write_tensor(w, "x", M1B_F32, (const int64_t[]){1}, 1);
	m1_safetensors_write_tensor(w, "x", M1B_F32, (const int64_t[]){1}, 1);
	assert_int_equal(m1_safetensors_writer_begin(w, &err), M1_E_INTERNAL);
	m1_safetensors_writer_free(w);

	w = create(&err);
	m1_safetensors_write_tensor(w, "x", M1B_Q8_0, (const int64_t[]){32}, 1);
	assert_int_equal(m1_safetensors_writer_begin(w, &err), M1_E_INTERNAL);
	m1_safetensors_writer_free(w);
	assert_true(read_one() == 1.0f);
	assert_int_equal(files_in_folder(), 1);
}

static void
test_full_disk(void **state)
{
	struct rlimit limit;
	struct rlimit small;
	m1_error err;
	m1_safetensors_writer *w;

	(void) state;
	write_one(2.0f);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = (struct rlimit){100000, limit.rlim_max};
	w = create(&err);
	m1_safetensors_write_tensor(w, "x", M1B_F32, (const int64_t[]){100000}, 1);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(m1_safetensors_writer_begin(w, &err), M1_E_IO);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_non_null(strstr(err.message, "no room for"));
	m1_safetensors_writer_free(w);
	assert_true(read_one() == 2.0f);
	assert_int_equal(files_in_folder(), 1);
}

static void
test_names(void **state)
{
	m1_error err;
	m1_safetensors_writer *w;

	(void) state;
	write_one(3.0f);
	assert_int_equal(m1_safetensors_writer_create(DIR_NAME "/" FILE_NAME, false, &w, &err), M1_E_INVALID_ARGUMENT);
	assert_non_null(strstr(err.message, "exists already"));
	assert_int_equal(m1_safetensors_writer_create(DIR_NAME, true, &w, &err), M1_E_INVALID_ARGUMENT);
	assert_int_equal(m1_safetensors_writer_create(DIR_NAME "/none/x", true, &w, &err), M1_E_IO);
	assert_ok(m1_new_file_put(DIR_NAME, FILE_NAME, m1_slice_of("text"), &err));
	assert_int_equal(m1_new_file_put(DIR_NAME "/none", FILE_NAME, m1_slice_of("text"), &err), M1_E_IO);
	assert_int_equal(files_in_folder(), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_metadata_is_json),
		cmocka_unit_test(test_misuse),	   cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
