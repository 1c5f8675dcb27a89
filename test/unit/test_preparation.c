/*
 * test_preparation.c - work that is given up ends soon after, wherever it is: what is made of a long text takes seconds,
 * and some steps of it are short for each byte, so that nobody thinks of asking. Time is that of the processor.
 */
#define _GNU_SOURCE /* pthread_getcpuclockid */
#include "tokenizer_testing.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/work.h"
#include "text/chat.h"

#define BYTES ((size_t) REPEATED(12) << 20)
#define CUTS 4

/* ---- what is prepared ---- */

typedef struct subject
{
	const char *what;
	const char *begins, *repeats, *ends; /* the text */
	m1_status (*prepare)(m1_slice text, m1_work *work, m1_error *err);
} subject;

static m1_status
encode(m1_slice text, m1_added_tokens added, m1_work *work, m1_error *err)
{
	m1_ids ids = {0};
	m1_ids ends = {0};
	m1_status status = m1_tokenizer_encode(tokenizer, text, added, &ids, &ends, work, err);

	m1_ids_free(&ids);
	m1_ids_free(&ends);
	return status;
}

static m1_status
encode_users(m1_slice text, m1_work *work, m1_error *err)
{
	return encode(text, M1_ADDED_NONE, work, err);
}

static m1_status
encode_models(m1_slice text, m1_work *work, m1_error *err)
{
	return encode(text, M1_ADDED_PLAIN, work, err);
}

static m1_status
render(m1_slice text, m1_work *work, m1_error *err)
{
	const m1_chat chat = {.messages = text, .work = work};
	m1_ids ids = {0};
	m1_chat_bounds bounds;
	m1_status status = m1_chat_render(tokenizer, &chat, &ids, &bounds, err);

	m1_ids_free(&ids);
	return status;
}

static const subject subjects[] = {
	{"one word", "", "a", "", encode_users},
	{"blanks", "", " ", "", encode_users},
	{"words", "", "hello world ", "", encode_users},
	{"tags of the model", "", "<think>", "", encode_models},
	{"what might be tags", "", "<", "", encode_models},
	{"a message", "[{\"role\":\"user\",\"content\":\"", "hello world ", "\"}]", render},
	{"what is no message", "[{\"role\":\"user\",\"content\":\"", "a", "\"},]", render},
};

/* The caller frees it. */
static m1_slice
text_of(const subject *s)
{
	const size_t unit = strlen(s->repeats);
	const size_t head = strlen(s->begins);
	const size_t tail = strlen(s->ends);
	const size_t middle = BYTES / unit * unit;
	char *text = malloc(head + middle + tail);

	assert_non_null(text);
	memcpy(text, s->begins, head);
	for (size_t at = 0; at < middle; at += unit)
		memcpy(text + head + at, s->repeats, unit);
	memcpy(text + head + middle, s->ends, tail);
	return (m1_slice){text, head + middle + tail};
}

/* ---- giving up ---- */

typedef struct trial
{
	const subject *subject;
	m1_slice text;
	m1_work work;
	m1_status status;
	double used; /* ms of the processor, at its end */
	atomic_bool over;
} trial;

static double
ms_of(clockid_t clock)
{
	struct timespec t;

	assert_int_equal(clock_gettime(clock, &t), 0);
	return (double) t.tv_sec * 1e3 + (double) t.tv_nsec / 1e6;
}

static void *
trial_main(void *arg)
{
	trial *t = arg;
	m1_error err;

	t->status = t->subject->prepare(t->text, &t->work, &err);
	t->used = ms_of(CLOCK_THREAD_CPUTIME_ID);
	atomic_store(&t->over, true);
	for (m1_work *w = &t->work; !atomic_load(&w->cancelled);)
		usleep(1000); /* while there is the thread, there is its clock */
	return NULL;
}

/* Runs it, and gives it up after so many ms of its time. Returns how long it went on. */
static double
go_on_after(trial *t, double ms)
{
	pthread_t thread;
	clockid_t clock;
	double given_up;

	m1_work_init(&t->work, M1_WORK_UNBOUNDED);
	atomic_init(&t->over, false);
	assert_int_equal(pthread_create(&thread, NULL, trial_main, t), 0);
	assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
	while (!atomic_load(&t->over) && ms_of(clock) < ms)
		usleep(500);
	m1_work_cancel(&t->work);
	given_up = ms_of(clock);
	pthread_join(thread, NULL);
	return t->used - given_up;
}

static void
test_given_up(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++)
	{
		trial t = {.subject = &subjects[i], .text = text_of(&subjects[i])};
		double whole;
		double most = 0;

		go_on_after(&t, 1e9);
		whole = t.used;
		for (int cut = 1; cut < CUTS; cut++)
		{
			const double ms = go_on_after(&t, whole * cut / CUTS);

			/* the last cut may find it over: it does not always take as long */
			assert_true(t.status == M1_E_CANCELLED || cut > 1);
			if (t.status == M1_E_CANCELLED && ms > most)
				most = ms;
		}
		free((char *) t.text.data);
		if (most > whole / 6 + 10)
			fail_msg("%s, which takes %.0f ms, goes on for %.0f after it was given up", t.subject->what, whole, most);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_given_up),
	};

	return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
