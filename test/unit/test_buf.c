/*
 * test_buf.c - a buffer that is filled at its end and consumed at its beginning, as queues of bytes are.
 */
#include "testing.h"

#include <string.h>

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_in_first_out),
		cmocka_unit_test(test_consumed_in_small_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
