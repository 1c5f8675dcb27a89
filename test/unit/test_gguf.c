/*
 * test_gguf.c - GGUF files that are cut short, damaged or made up: one error that names the place, and
 * nothing is read outside the file.
 */
#define _GNU_SOURCE /* truncate, pwrite */
#include "testing.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "files/gguf.h"
#include "files/gguf_writer.h"

#define DIR TEST_BUILD "/test_gguf"
#define PAGE 4096

static void
read_file(const char *name, m1_buf *out)
{
	char path[128];
	FILE *f;
	int c;

	snprintf(path, sizeof path, DIR "/%s", name);
	f = fopen(path, "rb");
	assert_non_null(f);
	while ((c = getc(f)) != EOF)
		m1_buf_append(out, &(char){(char) c}, 1);
	fclose(f);
}

/* Touches everything that the file offers. The sum keeps the reads alive. */
static double
walk(const m1_gguf *g)
{
	const m1_gguf_value *keys;
	const m1_tensor *tensors;
	const size_t n_keys = m1_gguf_keys(g, &keys);
	const size_t n_tensors = m1_gguf_tensors(g, &tensors);
	double sum = 0.0;

	for (size_t k = 0; k < n_keys; k++)
	{
		const m1_gguf_value *v = &keys[k];
		size_t at = 0;

		sum += (double) strlen(v->key);
		assert_ptr_equal(m1_gguf_find(g, v->key), v);
		for (size_t i = 0; i < v->count; i++)
		{
			double x = 0.0;
			int64_t n = 0;

			if (v->type == M1_GGUF_STRING)
			{
				const m1_slice text = m1_gguf_next_text(v, &at);

				for (size_t c = 0; c < text.len; c++)
					sum += text.data[c];
			}
			else if (m1_gguf_real(v, i, &x))
				sum += x == x ? 1.0 : 2.0;
			sum += m1_gguf_integer(v, i, &n) ? 1.0 : 0.0;
		}
	}
	for (size_t t = 0; t < n_tensors; t++)
		for (size_t i = 0; i < tensors[t].bytes; i++)
			sum += ((const unsigned char *) tensors[t].data)[i];
	return sum;
}

static m1_status
open_and_walk(const char *name, m1_error *err)
{
	m1_gguf *g;
	m1_status status = m1_gguf_open(DIR, name, &g, err);
	static volatile double sink;

	if (status == M1_OK)
		sink = walk(g);
	(void) sink;
	m1_gguf_close(g);
	return status;
}

/* A file of one page with keys of every kind and some tensors, the last of which ends with the page. */
static void
make_page(m1_buf *out)
{
	static const int64_t shape_a[] = {2, 3, 32};
	static const int64_t shape_b[] = {5};
	int64_t rest[] = {2, 1};
	char data[PAGE];
	m1_gguf_writer *w;
	m1_error err;

	memset(data, 7, sizeof data);
	/* the length of the rest is found by a first try */
	for (int round = 0; round < 2; round++)
	{
		m1_buf_free(out);
		assert_ok(m1_gguf_writer_create(DIR "/page.gguf", true, &w, &err));
		m1_gguf_write_text(w, "general.architecture", m1_slice_of("minimax-01"));
		m1_gguf_write_u32(w, "a.u32", 77);
		m1_gguf_write_f32(w, "a.f32", 0.5f);
		m1_gguf_write_bool(w, "a.bool", true);
		m1_gguf_write_array(w, "a.texts", M1_GGUF_STRING, 3);
		m1_gguf_write_text_element(w, m1_slice_of("one"));
		m1_gguf_write_text_element(w, m1_slice_of(""));
		m1_gguf_write_text_element(w, m1_slice_of("three"));
		m1_gguf_write_array(w, "a.numbers", M1_GGUF_I32, 2);
		m1_gguf_write_i32_element(w, -5);
		m1_gguf_write_i32_element(w, 6);
		m1_gguf_write_array(w, "a.bools", M1_GGUF_BOOL, 2);
		m1_gguf_write_bool_element(w, true);
		m1_gguf_write_bool_element(w, false);
		m1_gguf_write_tensor(w, "a.weight", M1B_Q8_0, shape_a, 3);
		m1_gguf_write_tensor(w, "b.weight", M1B_F32, shape_b, 1);
		m1_gguf_write_tensor(w, "rest.weight", M1B_F16, rest, 2);
		assert_ok(m1_gguf_writer_begin(w, &err));
		assert_ok(m1_gguf_writer_data(w, data, 6 * 34, &err));
		assert_ok(m1_gguf_writer_data(w, data, 20, &err));
		assert_ok(m1_gguf_writer_data(w, data, 2, &err));
		assert_ok(m1_gguf_writer_data(w, data, (size_t) rest[1] * 4 - 2, &err));
		assert_ok(m1_gguf_writer_finish(w, &err));
		m1_gguf_writer_free(w);
		read_file("page.gguf", out);
		if (round == 0)
			rest[1] = (PAGE - ((int64_t) out->len - 32)) / 4;
	}
	assert_int_equal(out->len, PAGE);
}

static void
test_round_trip(void **state)
{
	m1_buf page = {0};
	m1_gguf *g;
	m1_error err;
	const m1_tensor *t;
	const m1_gguf_value *v;
	size_t at = 0;
	int64_t n;
	double x;

	(void) state;
	mkdir("build", 0777);
	mkdir(DIR, 0777);
	make_page(&page);
	assert_ok(m1_gguf_open(DIR, "page.gguf", &g, &err));
	assert_int_equal(m1_gguf_keys(g, &v), 7);
	assert_int_equal(m1_gguf_tensors(g, &t), 3);
	assert_string_equal(t[0].name, "a.weight");
	assert_true(t[0].dims == 3 && t[0].shape[0] == 2 && t[0].shape[1] == 3 && t[0].shape[2] == 32);
	assert_true(t[0].type == M1B_Q8_0 && t[0].bytes == 6 * 34 && t[2].type == M1B_F16);
	assert_null(m1_gguf_find(g, "a.u3"));
	assert_true(m1_gguf_integer(m1_gguf_find(g, "a.u32"), 0, &n) && n == 77);
	assert_true(m1_gguf_real(m1_gguf_find(g, "a.u32"), 0, &x) && x == 77.0);
	assert_true(m1_gguf_real(m1_gguf_find(g, "a.f32"), 0, &x) && x == 0.5);
	assert_false(m1_gguf_integer(m1_gguf_find(g, "a.f32"), 0, &n));
	assert_false(m1_gguf_integer(m1_gguf_find(g, "a.u32"), 1, &n));
	assert_true(m1_gguf_integer(m1_gguf_find(g, "a.numbers"), 0, &n) && n == -5);
	assert_true(m1_gguf_integer(m1_gguf_find(g, "a.bools"), 1, &n) && n == 0);
	v = m1_gguf_find(g, "a.texts");
	assert_true(v->count == 3 && m1_gguf_next_text(v, &at).len == 3 && m1_gguf_next_text(v, &at).len == 0);
	assert_memory_equal(m1_gguf_next_text(v, &at).data, "three", 5);
	assert_null(m1_gguf_text(v).data);
	m1_gguf_close(g);
	m1_buf_free(&page);
}

static void
test_truncated(void **state)
{
	m1_buf page = {0};
	m1_error err;

	(void) state;
	make_page(&page);
	test_write_file(DIR, "cut.gguf", page.data, page.len);
	assert_ok(open_and_walk("cut.gguf", &err));
	for (size_t len = page.len; len-- > 0;)
	{
		assert_int_equal(truncate(DIR "/cut.gguf", (off_t) len), 0);
		assert_int_equal(open_and_walk("cut.gguf", &err), M1_E_CORRUPT);
		assert_non_null(strstr(err.message, "cut.gguf"));
	}
	m1_buf_free(&page);
}

/* Every bit of the header, and every byte as 0 and as 255: an error, or a file that makes sense another way. */
static void
test_damaged(void **state)
{
	m1_buf page = {0};
	size_t header;
	m1_error err;
	int refused = 0;
	int fd;

	(void) state;
	make_page(&page);
	test_write_file(DIR, "bad.gguf", page.data, page.len);
	fd = open(DIR "/bad.gguf", O_WRONLY);
	assert_true(fd >= 0);
	for (header = page.len; page.data[header - 1] == 7 || page.data[header - 1] == 0; header--)
		;
	assert_true(header > 300);
	for (size_t at = 0; at < header; at++)
	{
		const char good = page.data[at];

		for (int change = 0; change < 10; change++)
		{
			const char bad = (char) (change < 8 ? good ^ 1 << change : change == 8 ? 0 : -1);

			assert_int_equal(pwrite(fd, &bad, 1, (off_t) at), 1);
			if (open_and_walk("bad.gguf", &err) != M1_OK)
			{
				assert_true(err.message[0] != '\0');
				refused++;
			}
		}
		assert_int_equal(pwrite(fd, &good, 1, (off_t) at), 1);
	}
	assert_ok(open_and_walk("bad.gguf", &err));
	close(fd);
	/* most of it is structure */
	assert_true(refused > (int) header * 5);
	m1_buf_free(&page);
}

/* ---- made-up headers ---- */

static void
put(m1_buf *b, uint64_t n, int bytes)
{
	for (int i = 0; i < bytes; i++)
		m1_buf_append(b, &(char){(char) (n >> 8 * i)}, 1);
}

static void
put_text(m1_buf *b, const char *text)
{
	put(b, strlen(text), 8);
	m1_buf_puts(b, text);
}

static m1_buf
header(uint32_t version, uint64_t tensors, uint64_t keys)
{
	m1_buf b = {0};

	m1_buf_puts(&b, "GGUF");
	put(&b, version, 4);
	put(&b, tensors, 8);
	put(&b, keys, 8);
	return b;
}

static void
put_tensor(m1_buf *b, const char *name, uint32_t dims, uint64_t first, uint32_t type, uint64_t offset)
{
	put_text(b, name);
	put(b, dims, 4);
	for (uint32_t i = 0; i < dims && i < 8; i++)
		put(b, i == 0 ? first : 1, 8);
	put(b, type, 4);
	put(b, offset, 8);
}

/* Opens what is in b, filled up to two kilobytes, and frees it. */
static void
assert_refused(m1_buf *b, m1_status want, const char *says)
{
	m1_error err;
	m1_status status;

	while (b->len < 2048)
		m1_buf_append(b, "", 1);
	test_write_file(DIR, "made.gguf", b->data, b->len);
	m1_buf_free(b);
	status = open_and_walk("made.gguf", &err);
	if (status != want || (says != NULL && strstr(err.message, says) == NULL))
		fail_msg("%s: \"%s\" where \"%s\" was expected", m1_status_name(status), err.message, says != NULL ? says : "");
}

static void
test_headers(void **state)
{
	static const struct
	{
		uint32_t version;
		uint64_t tensors, keys;
		m1_status status;
		const char *says;
	} heads[] = {
		{1, 0, 0, M1_E_UNSUPPORTED, "version"},
		{4, 0, 0, M1_E_UNSUPPORTED, "version"},
		{3u << 24, 0, 0, M1_E_UNSUPPORTED, "version"},
		{3, UINT64_MAX, 0, M1_E_CORRUPT, "absurd number of tensors"},
		{3, 1000, 0, M1_E_CORRUPT, "absurd number of tensors"},
		{3, 0, UINT64_MAX, M1_E_CORRUPT, "absurd number of keys"},
		{3, 0, (uint64_t) 1 << 63, M1_E_CORRUPT, "absurd number of keys"},
		{3, 0, 1, M1_E_CORRUPT, "the first key has an impossible name"},
		{3, 1, 0, M1_E_CORRUPT, "the first tensor has an impossible name"},
		{2, 0, 0, M1_OK, NULL},
		{3, 0, 0, M1_OK, NULL},
	};

	(void) state;
	for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
	{
		m1_buf b = header(heads[i].version, heads[i].tensors, heads[i].keys);

		assert_refused(&b, heads[i].status, heads[i].says);
	}
	test_write_file(DIR, "made.gguf", "GGML", 4);
	{
		m1_error err;

		assert_int_equal(open_and_walk("made.gguf", &err), M1_E_CORRUPT);
		assert_non_null(strstr(err.message, "not a GGUF file"));
		assert_int_equal(open_and_walk("missing.gguf", &err), M1_E_NOT_FOUND);
	}
}

static void
test_keys(void **state)
{
	static const struct
	{
		uint32_t type, element;
		uint64_t count;
		m1_status status;
		const char *says;
	} values[] = {
		{13, 0, 0, M1_E_CORRUPT, "key \"k\" has an unknown type of value"},
		{9, 13, 1, M1_E_CORRUPT, "key \"k\" has an unknown type of value"},
		{9, 9, 1, M1_E_UNSUPPORTED, "key \"k\" is an array of arrays"},
		{9, 4, 100000, M1_E_CORRUPT, "key \"k\" goes beyond the end"},
		{9, 10, UINT64_MAX, M1_E_CORRUPT, "key \"k\" has an absurd number"},
		{9, 0, UINT64_MAX, M1_E_CORRUPT, "key \"k\" goes beyond the end"},
		{9, 8, UINT64_MAX, M1_E_CORRUPT, "key \"k\" goes beyond the end"},
		{9, 0, 0, M1_OK, NULL},
		{12, 0, 0, M1_OK, NULL},
	};

	(void) state;
	for (size_t i = 0; i < sizeof values / sizeof *values; i++)
	{
		m1_buf b = header(3, 0, 1);

		put_text(&b, "k");
		put(&b, values[i].type, 4);
		put(&b, values[i].element, 4);
		put(&b, values[i].count, 8);
		assert_refused(&b, values[i].status, values[i].says);
	}
	for (int round = 0; round < 2; round++)
	{
		m1_buf b = header(3, 0, 2);

		put_text(&b, "same");
		put(&b, 4, 4);
		put(&b, 1, 4);
		put_text(&b, round == 0 ? "same" : "bad\xff");
		put(&b, 4, 4);
		put(&b, 1, 4);
		assert_refused(&b, M1_E_CORRUPT,
					   round == 0 ? "key \"same\" is there twice" : "the key after \"same\" has an impossible name");
	}
	for (uint32_t alignment = 0; alignment < 80; alignment += 4)
	{
		m1_buf b = header(3, 0, 1);

		put_text(&b, "general.alignment");
		put(&b, 4, 4);
		put(&b, alignment, 4);
		if (alignment == 8 || alignment == 16 || alignment == 32 || alignment == 64)
			assert_refused(&b, M1_OK, NULL);
		else
			assert_refused(&b, M1_E_CORRUPT, "\"general.alignment\" must be a power of two");
	}
}

static void
test_tensors(void **state)
{
	static const struct
	{
		uint32_t dims;
		uint64_t first;
		uint32_t type;
		uint64_t offset;
		m1_status status;
		const char *says;
	} tensors[] = {
		{0, 0, 0, 0, M1_E_CORRUPT, "\"t\" does not have 1 to 4 dimensions"},
		{5, 1, 0, 0, M1_E_CORRUPT, "\"t\" does not have 1 to 4 dimensions"},
		{1, 0, 0, 0, M1_E_CORRUPT, "\"t\" has an impossible shape"},
		{1, UINT64_MAX, 0, 0, M1_E_CORRUPT, "\"t\" has an impossible shape"},
		{1, INT64_MAX, 0, 0, M1_E_CORRUPT, "\"t\" is larger than the file"},
		{1, 32, 10, 0, M1_E_UNSUPPORTED, "\"t\" has a type that is not supported"},
		{1, 32, 4, 0, M1_E_UNSUPPORTED, "\"t\" has an unknown type"},
		{1, 32, 99, 0, M1_E_UNSUPPORTED, "\"t\" has an unknown type"},
		{1, 33, 8, 0, M1_E_CORRUPT, "\"t\" has rows that are no whole number of blocks"},
		{1, 32, 12, 0, M1_E_CORRUPT, "\"t\" has rows that are no whole number of blocks"},
		{1, 8, 0, 8, M1_E_CORRUPT, "\"t\" is not aligned"},
		{1, 8, 0, 4096, M1_E_CORRUPT, "\"t\" lies beyond the end"},
		{1, 8, 0, 2048, M1_E_CORRUPT, "\"t\" lies beyond the end"},
		{1, 8, 0, UINT64_MAX - 31, M1_E_CORRUPT, "\"t\" lies beyond the end"},
		{1, 600, 0, 0, M1_E_CORRUPT, "\"t\" is larger than the file"},
		{1, 500, 0, 0, M1_E_CORRUPT, "\"t\" lies beyond the end"},
		{4, 256, 14, 64, M1_OK, NULL},
		{4, 256, 30, 32, M1_OK, NULL},
	};

	(void) state;
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
	{
		m1_buf b = header(3, 1, 0);

		put_tensor(&b, "t", tensors[i].dims, tensors[i].first, tensors[i].type, tensors[i].offset);
		assert_refused(&b, tensors[i].status, tensors[i].says);
	}
	for (int round = 0; round < 3; round++)
	{
		m1_buf b = header(3, 2, 0);

		put_tensor(&b, "one", 1, 16, 0, 0);
		put_tensor(&b, round == 0 ? "one" : "two", 1, 16, 0, round == 1 ? 32 : 64);
		if (round == 2)
			assert_refused(&b, M1_OK, NULL);
		else
			assert_refused(&b, M1_E_CORRUPT,
						   round == 0 ? "tensor \"one\" is there twice" : "tensor \"two\" overlaps another tensor");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_truncated), cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_headers),	   cmocka_unit_test(test_keys),		 cmocka_unit_test(test_tensors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
