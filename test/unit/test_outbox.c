/* test_outbox.c - messages that wait to be written: what is short does not stand behind what is long. */
#include "testing.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "commands/outbox.h"

static int discarded;

static void
discard(void *context, m1_buf *payload)
{
	(void) context;
	discarded++;
	m1_buf_free(payload);
}

typedef struct fixture
{
	m1_outbox *outbox;
	int to, from; /* a stream */
} fixture;

static fixture
make_fixture(void)
{
	fixture f = {.outbox = m1_outbox_create(discard, NULL)};
	int fds[2];

	assert_non_null(f.outbox);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	f.to = fds[0];
	f.from = fds[1];
	assert_int_equal(fcntl(f.to, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(fcntl(f.from, F_SETFL, O_NONBLOCK), 0);
	discarded = 0;
	return f;
}

static void
put(fixture *f, m1w_type type, uint64_t id, size_t length)
{
	m1_buf payload = {0};

	assert_true(m1_buf_reserve(&payload, length));
	if (length > 0)
		memset(payload.data, (int) id, length);
	payload.len = length;
	m1_outbox_put(f->outbox, type, id, &payload);
	assert_null(payload.data);
}

/* Writes and reads until nothing is left. Tells the frames by a letter each: of long messages their ids, else types. */
static void
drain(fixture *f, char *told, size_t most)
{
	m1_buf in = {0};
	bool broken;
	size_t n = 0;

	for (;;)
	{
		m1w_header h;
		m1_error err;
		bool complete = false;
		ssize_t got;

		if (m1_outbox_pending(f->outbox, &broken))
			assert_true(m1_outbox_write(f->outbox, f->to));
		assert_true(m1_buf_reserve(&in, 65536));
		if ((got = read(f->from, in.data + in.len, in.cap - in.len)) > 0)
			in.len += (size_t) got;
		while (m1w_frame_peek(in.data, in.len, &h, &complete, &err) == M1_OK && complete)
		{
			assert_true(n + 1 < most);
			for (size_t i = 0; i < h.length; i++)
				assert_int_equal(in.data[sizeof h + i], (char) h.request_id);
			told[n++] = (char) ('a' + h.request_id);
			if (h.type == M1W_ERROR)
				told[n - 1] = 'E';
			m1_buf_consume(&in, sizeof h + h.length);
		}
		if (got <= 0 && !m1_outbox_pending(f->outbox, &broken))
			break;
	}
	told[n] = '\0';
	assert_int_equal(in.len, 0);
	m1_buf_free(&in);
}

static void
end_fixture(fixture *f)
{
	close(f->to);
	close(f->from);
	m1_outbox_free(f->outbox);
}

static void
test_long_ones_take_turns(void **state)
{
	fixture f = make_fixture();
	char told[100];

	(void) state;
	put(&f, M1W_TEXT, 0, 3 * M1W_MAX_PART);
	put(&f, M1W_TEXT, 1, 2 * M1W_MAX_PART + 1);
	put(&f, M1W_TEXT, 2, M1W_MAX_PART);
	put(&f, M1W_TEXT, 3, 0);
	drain(&f, told, sizeof told);
	assert_string_equal(told, "cdababab");
	assert_int_equal(discarded, 2);
	end_fixture(&f);
}

static void
test_a_request_keeps_its_order(void **state)
{
	fixture f = make_fixture();
	char told[100];

	(void) state;
	put(&f, M1W_DELTA, 0, 2 * M1W_MAX_PART);
	put(&f, M1W_ERROR, 0, 10);
	put(&f, M1W_TEXT, 1, 10);
	drain(&f, told, sizeof told);
	assert_string_equal(told, "baaE");
	end_fixture(&f);
}

static void
test_paused_and_dropped(void **state)
{
	fixture f = make_fixture();
	char told[100];

	(void) state;
	put(&f, M1W_TEXT, 0, 2 * M1W_MAX_PART);
	put(&f, M1W_DELTA, 1, 2 * M1W_MAX_PART);
	put(&f, M1W_TEXT, 2, 2 * M1W_MAX_PART);
	assert_true(m1_outbox_pause(f.outbox, 0, true));
	assert_false(m1_outbox_pause(f.outbox, 3, true));
	/* more is to come of a request of which there is a delta: the engine has to hear of it, too */
	assert_false(m1_outbox_drop(f.outbox, 1));
	assert_true(m1_outbox_drop(f.outbox, 2));
	assert_int_equal(discarded, 1);
	drain(&f, told, sizeof told);
	assert_string_equal(told, "bb");
	assert_true(m1_outbox_pause(f.outbox, 0, false));
	drain(&f, told, sizeof told);
	assert_string_equal(told, "aa");
	end_fixture(&f);
}

static void
test_what_cannot_be_kept_breaks_it(void **state)
{
	fixture f = make_fixture();
	m1_buf lost = {.failed = true};
	bool broken;

	(void) state;
	assert_false(m1_outbox_pending(f.outbox, &broken));
	assert_false(broken);
	m1_outbox_put(f.outbox, M1W_DONE, 1, &lost);
	assert_false(m1_outbox_pending(f.outbox, &broken));
	assert_true(broken);
	end_fixture(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_long_ones_take_turns),
		cmocka_unit_test(test_a_request_keeps_its_order),
		cmocka_unit_test(test_paused_and_dropped),
		cmocka_unit_test(test_what_cannot_be_kept_breaks_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
