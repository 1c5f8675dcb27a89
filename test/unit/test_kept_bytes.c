/*
 * test_kept_bytes.c - bytes that are put piece by piece: what is added to stays, what was left makes room for others.
 */
#include "testing.h"

#include <stdio.h>

#include "base/memory.h"
#include "engine/kept_bytes.h"

#define MOST 16
#define LONG 60000.0

static m1_kept_bytes *list;
static m1_error error;

static m1_status
put(int number, uint64_t offset, uint64_t total, double now_ms)
{
	char name[16];

	snprintf(name, sizeof name, "run %d", number);
	return m1_kept_put(
		&list, &(m1w_bytes){.name = m1_slice_of(name), .total = total, .offset = offset, .bytes = m1_slice_of("abc")},
		now_ms, &error);
}

static int
drop_all(void **state)
{
	(void) state;
	while (list != NULL)
		m1_kept_drop(&list, list);
	return 0;
}

static void
test_pieces_follow(void **state)
{
	(void) state;
	assert_int_equal(put(1, 0, 9, 0.0), M1_OK);
	assert_int_equal(put(1, 6, 9, 0.0), M1_E_INVALID_ARGUMENT);
	assert_int_equal(put(1, 3, 9, 0.0), M1_OK);
	assert_int_equal(put(1, 6, 9, 0.0), M1_OK);
	assert_int_equal(m1_kept_find(list, m1_slice_of("run 1"))->bytes.len, 9);
	assert_int_equal(put(2, 3, 9, 0.0), M1_E_NOT_FOUND);
	assert_int_equal(put(1, 0, 6, 0.0), M1_OK);
	assert_int_equal(m1_kept_find(list, m1_slice_of("run 1"))->bytes.len, 3);
}

static void
test_what_was_left_makes_room(void **state)
{
	(void) state;
	for (int i = 0; i < MOST; i++)
		assert_int_equal(put(i, 0, 9, i), M1_OK);
	assert_int_equal(put(MOST, 0, 9, 1000.0), M1_E_NO_MEMORY);
	/* all but number 0 are left */
	assert_int_equal(put(0, 3, 9, LONG), M1_OK);
	assert_int_equal(put(MOST, 0, 9, LONG), M1_OK);
	assert_non_null(m1_kept_find(list, m1_slice_of("run 0")));
	assert_null(m1_kept_find(list, m1_slice_of("run 1")));
	assert_non_null(m1_kept_find(list, m1_slice_of("run 2")));
}

static void
test_and_so_do_their_bytes(void **state)
{
	const uint64_t most = m1_machine_memory() / 4;

	(void) state;
	/* reserved, and not touched */
	assert_int_equal(put(1, 0, most / 2, 0.0), M1_OK);
	assert_int_equal(put(2, 0, most / 2 + 1, 1000.0), M1_E_NO_MEMORY);
	assert_non_null(m1_kept_find(list, m1_slice_of("run 1")));
	assert_int_equal(put(2, 0, most + 1, LONG), M1_E_NO_MEMORY);
	assert_non_null(m1_kept_find(list, m1_slice_of("run 1")));
	assert_int_equal(put(2, 0, most / 2 + 1, LONG), M1_OK);
	assert_null(m1_kept_find(list, m1_slice_of("run 1")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_pieces_follow, drop_all),
		cmocka_unit_test_teardown(test_what_was_left_makes_room, drop_all),
		cmocka_unit_test_teardown(test_and_so_do_their_bytes, drop_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
