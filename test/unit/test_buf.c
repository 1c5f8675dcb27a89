/*
 * test_buf.c - a buffer that is filled at its end and consumed at its beginning, as queues of bytes are.
 */
#include "testing.h"

#include <string.h>
#include <sys/resource.h>

#include "base/buf.h"

/* Appends and consumes at random what a counter says next: nothing is lost, and memory grows with what is in it. */
static void
test_first_in_first_out(void **state)
{
	m1_buf b = {0};
	uint64_t random = 42;
	uint32_t in = 0;
	uint32_t out = 0;

	(void) state;
	for (int round = 0; round < 20000; round++)
	{
		for (uint32_t n = test_random(&random) % 50; n > 0; n--)
		{
			assert_true(m1_buf_append(&b, &in, sizeof in));
			in++;
		}
		for (uint32_t n = test_random(&random) % 60; n > 0 && b.len > 0; n--)
		{
			uint32_t next;

			memcpy(&next, b.data, sizeof next);
			assert_int_equal(next, out++);
			m1_buf_consume(&b, sizeof next);
		}
		assert_int_equal(b.len, (in - out) * sizeof in);
		assert_true(b.consumed + b.cap <= 1 << 20);
	}
	m1_buf_free(&b);
	assert_null(b.data);
}

/* A long one in small pieces: in no more time than it takes to look at them. */
static void
test_consumed_in_small_pieces(void **state)
{
	enum
	{
		BYTES = 64 << 20,
		PIECE = 40
	};
	m1_buf b = {0};
	size_t left = BYTES;

	(void) state;
	assert_true(m1_buf_reserve(&b, BYTES));
	memset(b.data, 'x', BYTES);
	b.len = BYTES;
	while (left > PIECE)
	{
		m1_buf_consume(&b, PIECE);
		left -= PIECE;
		assert_true(b.len == left && b.data[0] == 'x');
	}
	m1_buf_consume(&b, BYTES);
	assert_int_equal(b.len, 0);
	assert_int_equal(b.consumed, 0);
	m1_buf_free(&b);
}

/* Across the sizes from which on memory is the system's own. */
static void
test_grows_with_its_contents(void **state)
{
	m1_buf b = {0};
	m1_ids a = {0};

	(void) state;
	for (int32_t i = 0; i < 1 << 20; i++)
	{
		assert_true(m1_buf_append(&b, &i, sizeof i));
		assert_true(m1_ids_push(&a, i));
		if (i % 100000 == 99)
			m1_buf_consume(&b, 80 * sizeof i);
	}
	for (size_t i = 0; i < a.len; i++)
		assert_int_equal(a.data[i], i);
	for (size_t i = 0; i < b.len / sizeof(int32_t); i++)
	{
		int32_t x;

		memcpy(&x, b.data + i * sizeof x, sizeof x);
		assert_int_equal(x, i + 11 * 80);
	}
	m1_buf_free(&b);
	m1_ids_free(&a);
}

static long
pages_touched(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* What was reserved and never written is not written to be wiped: it would take the memory, and the time. */
static void
test_reserved_is_not_written(void **state)
{
	const long before = pages_touched();
	m1_buf b = {0};
	m1_ids a = {0};

	(void) state;
	assert_true(m1_buf_reserve(&b, (size_t) 256 << 20));
	assert_true(m1_buf_puts(&b, "short"));
	assert_true(m1_ids_reserve(&a, (size_t) 64 << 20));
	assert_true(m1_ids_push(&a, 1));
	m1_buf_free(&b);
	m1_ids_free(&a);
	assert_in_range(pages_touched() - before, 0, 5000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_in_first_out),
		cmocka_unit_test(test_consumed_in_small_pieces),
		cmocka_unit_test(test_grows_with_its_contents),
		cmocka_unit_test(test_reserved_is_not_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
