/*
 * serving.c - see serving.h.
 *
 * The main thread reads frames and writes what the outbox holds, and does nothing that takes long. Preparers read the
 * requests, each on its own time, so that a long text is tokenized beside everybody's answers, not in front of them.
 * The step thread runs the engine, whose events become frames in the outbox. End of input ends the process.
 */
#define _GNU_SOURCE /* pthread */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands/outbox.h"
#include "commands/preparers.h"
#include "commands/serving.h"

#define LOOK_EACH 65536 /* ids, whether they are still wanted */

/* A request of which parts have arrived. There are no more of them than the worker has places. */
typedef struct incoming
{
	struct incoming *next;
	uint64_t id;
	m1w_assembly message;
} incoming;

typedef struct server
{
	int fd;
	const m1_served *served;
	void *engine; /* its own */
	m1_outbox *outbox;
	m1_preparers *preparers; /* main thread only, as the next */
	m1_buf in;
	incoming *incoming;
} server;

/* ---- messages to be written ---- */

static void
put(server *s, m1w_type type, uint64_t id, m1_buf *payload, bool encoded)
{
	if (!encoded)
		payload->failed = true;
	m1_outbox_put(s->outbox, type, id, payload);
}

#define SEND(s, type, name, id, message)                           \
	do                                                             \
	{                                                              \
		m1_buf frame_payload = {0};                                \
		bool encoded = m1w_encode_##name(&frame_payload, message); \
		put(s, type, id, &frame_payload, encoded);                 \
	} while (0)

static void
on_progress(void *context, uint64_t id, const m1w_progress *m)
{
	SEND((server *) context, M1W_PROGRESS, progress, id, m);
}

static void
on_delta(void *context, uint64_t id, const m1w_delta *m)
{
	SEND((server *) context, M1W_DELTA, delta, id, m);
}

static void
on_done(void *context, uint64_t id, const m1w_done *m)
{
	SEND((server *) context, M1W_DONE, done, id, m);
}

static void
on_vector(void *context, uint64_t id, const m1w_vector *m)
{
	SEND((server *) context, M1W_VECTOR, vector, id, m);
}

static void
on_failed(void *context, uint64_t id, const m1_error *error)
{
	m1w_failure m = m1w_failure_of(error);

	SEND((server *) context, M1W_ERROR, failure, id, &m);
}

static void
on_cache(void *context, const m1w_cache *m)
{
	SEND((server *) context, M1W_CACHE, cache, 0, m);
}

static void
on_learned(void *context, uint64_t id, const m1w_learned *m)
{
	SEND((server *) context, M1W_LEARNED, learned, id, m);
}

static void
on_bytes(void *context, uint64_t id, const m1w_bytes *m)
{
	SEND((server *) context, M1W_BYTES, bytes, id, m);
}

static void
on_ready(void *context, const m1w_ready *m)
{
	SEND((server *) context, M1W_READY, ready, 0, m);
}

/* ---- requests, on preparers' threads ---- */

static const m1_tokenizer *
tokenizer_of(const server *s, m1_error *err)
{
	const m1_model *model = s->served->model(s->engine);

	if (model->tokenizer == NULL)
	{
		m1_fail(err, M1_E_UNSUPPORTED, "model \"%s\" has no tokenizer", model->name);
		m1_error_hint(err, "Put its tokenizer.json or merges.txt into the checkpoint folder.");
	}
	return model->tokenizer;
}

/* An answer that no frame can hold is the asker's to know; it must not end the engine for everybody. */
static m1_status
fit_frame(size_t bytes, m1_error *err)
{
	if (bytes <= M1W_MAX_PAYLOAD)
		return M1_OK;
	m1_fail(err, M1_E_CONTEXT_OVERFLOW, "the answer is too long");
	m1_error_detail(err, "It has %zu bytes; %u can be sent at once.", bytes, M1W_MAX_PAYLOAD);
	m1_error_hint(err, "Ask in parts.");
	return M1_E_CONTEXT_OVERFLOW;
}

static m1_status
send_tokens(server *s, uint64_t id, const m1w_tokens *tokens, m1_error *err)
{
	const m1_status status =
		fit_frame(2 * sizeof(uint32_t) + (tokens->ids.len + tokens->ends.len) * sizeof(int32_t), err);

	if (status == M1_OK)
		SEND(s, M1W_TOKENS, tokens, id, tokens);
	return status;
}

static m1_status
send_wanted(server *s, uint64_t id, m1w_wanted wanted, const m1_ids *ids, const m1_ids *ends, m1_error *err)
{
	if (wanted == M1W_WANT_COUNT)
	{
		SEND(s, M1W_COUNTED, counted, id, &(m1w_counted){(int64_t) ids->len});
		return M1_OK;
	}
	if (wanted == M1W_WANT_ENDS)
		return send_tokens(s, id, &(m1w_tokens){.ends = {ends->data, ends->len}}, err);
	return send_tokens(s, id, &(m1w_tokens){.ids = {ids->data, ids->len}}, err);
}

static m1_status
tokenize(server *s, m1_task *task, m1_error *err)
{
	const m1_tokenizer *t = tokenizer_of(s, err);
	m1w_words words;
	m1_ids ids = {0};
	m1_ids ends = {0};
	m1_status status;

	if (t == NULL)
		return M1_E_UNSUPPORTED;
	status = m1w_decode_words(task->payload.data, task->payload.len, &words, err);
	if (status == M1_OK)
		status = m1_tokenizer_encode(t, words.text, words.tags ? M1_ADDED_PLAIN : M1_ADDED_NONE, &ids,
									 words.wanted == M1W_WANT_ENDS ? &ends : NULL, &task->work, err);
	if (status == M1_OK)
		status = send_wanted(s, task->id, words.wanted, &ids, &ends, err);
	m1_ids_free(&ids);
	m1_ids_free(&ends);
	return status;
}

static m1_status
copy_ids(m1w_id_slice from, m1_ids *ids, m1_work *work, m1_error *err)
{
	if (!m1_ids_reserve(ids, from.len))
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for %zu token ids", from.len);
	for (size_t i = 0; i < from.len; i++)
		if (i % LOOK_EACH == 0 && !m1_work_goes_on(work, 0))
			return m1_work_stopped(work, "the text of the tokens", err);
		else
			m1_ids_push(ids, m1w_id_at(from, i));
	return M1_OK;
}

static m1_status
detokenize(server *s, m1_task *task, m1_error *err)
{
	const m1_tokenizer *t = tokenizer_of(s, err);
	m1w_tokens tokens;
	m1_ids ids = {0};
	m1_buf text = {0};
	m1_status status;

	if (t == NULL)
		return M1_E_UNSUPPORTED;
	status = m1w_decode_tokens(task->payload.data, task->payload.len, &tokens, err);
	if (status == M1_OK)
		status = copy_ids(tokens.ids, &ids, &task->work, err);
	if (status == M1_OK)
		status = m1_tokenizer_decode(t, ids.data, ids.len, &text, &task->work, err);
	if (status == M1_OK)
		status = fit_frame(sizeof(uint32_t) + text.len, err);
	if (status == M1_OK)
	{
		m1w_text answer = {.text = {text.data, text.len}};

		SEND(s, M1W_TEXT, text, task->id, &answer);
	}
	m1_ids_free(&ids);
	m1_buf_free(&text);
	return status;
}

static m1_status
generate(server *s, m1_task *task, m1_error *err)
{
	m1w_generate g;
	m1_status status = m1w_decode_generate(task->payload.data, task->payload.len, &g, err);

	return status == M1_OK ? s->served->generate(s->engine, task->id, &g, &task->work, err) : status;
}

static m1_status
logits(server *s, m1_task *task, m1_error *err)
{
	m1w_tokens tokens;
	m1_status status = m1w_decode_tokens(task->payload.data, task->payload.len, &tokens, err);

	return status == M1_OK ? s->served->logits(s->engine, task->id, tokens.ids, err) : status;
}

static void
prepare(void *context, m1_task *task)
{
	server *s = context;
	m1_status status = M1_OK;
	m1_error err;

	switch (task->type)
	{
		case M1W_GENERATE:
			status = generate(s, task, &err);
			break;
		case M1W_LOGITS:
			status = logits(s, task, &err);
			break;
		case M1W_TOKENIZE:
			status = tokenize(s, task, &err);
			break;
		case M1W_PUT:
		case M1W_FETCH:
		case M1W_TRAINING:
		case M1W_LESSON:
		case M1W_SERVE:
		case M1W_FORGET:
			status = s->served->learn(s->engine, task->id, task->type, &task->payload, &task->work, &err);
			break;
		default:
			status = detokenize(s, task, &err);
			break;
	}
	if (status != M1_OK)
		on_failed(s, task->id, &err);
}

/* The request may be in the engine, or have failed. */
static void
take_back(void *context, uint64_t id)
{
	server *s = context;

	s->served->cancel(s->engine, id);
}

/* ---- requests, on the main thread ---- */

static void
discard(void *context, m1_buf *payload)
{
	m1_preparers_discard(((server *) context)->preparers, payload);
}

static incoming **
find_incoming(server *s, uint64_t id)
{
	incoming **at = &s->incoming;

	while (*at != NULL && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

/* Returns what has arrived of it. */
static m1_buf
take_incoming(incoming **at)
{
	incoming *i = *at;
	m1_buf payload = i->message.payload;

	*at = i->next;
	free(i);
	return payload;
}

static bool
drop_incoming(server *s, uint64_t id)
{
	incoming **at = find_incoming(s, id);
	m1_buf payload;

	if (*at == NULL)
		return false;
	payload = take_incoming(at);
	m1_preparers_discard(s->preparers, &payload);
	return true;
}

static void
cancel(server *s, uint64_t id)
{
	m1_error err;
	m1_cancelled what = M1_CANCEL_DROPPED;

	if (!drop_incoming(s, id) && !m1_outbox_drop(s->outbox, id))
		what = m1_preparers_cancel(s->preparers, id);
	if (what == M1_CANCEL_UNKNOWN)
		s->served->cancel(s->engine, id);
	if (what != M1_CANCEL_DROPPED)
		return;
	m1_fail(&err, M1_E_CANCELLED, "the request was cancelled");
	on_failed(s, id, &err);
}

/* Keeps a part of a request, and hands the whole of it to a preparer. false when the stream makes no sense. */
static bool
receive(server *s, const m1w_header *h, const char *part)
{
	incoming **at = find_incoming(s, h->request_id);
	m1_buf payload;
	m1_error err;

	if (*at == NULL && (*at = calloc(1, sizeof **at)) == NULL)
		return false;
	(*at)->id = h->request_id;
	if (!m1w_assembly_add(&(*at)->message, h, part))
		return false;
	if ((*at)->message.more > 0)
		return true;
	payload = take_incoming(at);
	if (m1_preparers_add(s->preparers, h->type, h->request_id, &payload, &err) != M1_OK)
		on_failed(s, h->request_id, &err);
	return true;
}

/* false when the stream makes no sense. */
static bool
handle(server *s, const m1w_header *h, const char *payload)
{
	m1_error err;

	switch (h->type)
	{
		case M1W_GENERATE:
		case M1W_LOGITS:
		case M1W_TOKENIZE:
		case M1W_DETOKENIZE:
		case M1W_PUT:
		case M1W_FETCH:
		case M1W_TRAINING:
		case M1W_LESSON:
		case M1W_SERVE:
		case M1W_FORGET:
			return receive(s, h, payload);
		case M1W_CANCEL:
			cancel(s, h->request_id);
			break;
		case M1W_PAUSE:
			if (!m1_outbox_pause(s->outbox, h->request_id, true))
				s->served->pause(s->engine, h->request_id);
			break;
		case M1W_RESUME:
			if (!m1_outbox_pause(s->outbox, h->request_id, false))
				s->served->resume(s->engine, h->request_id);
			break;
		default:
			m1_fail(&err, M1_E_CORRUPT, "frame of unknown type %u", h->type);
			on_failed(s, h->request_id, &err);
			break;
	}
	return true;
}

/* ---- input and output ---- */

/* Handles every whole frame in the input. false when the stream makes no sense. */
static bool
handle_input(server *s)
{
	size_t done = 0;
	bool complete = true;

	while (complete)
	{
		m1w_header h;
		m1_error err;

		if (m1w_frame_peek(s->in.data + done, s->in.len - done, &h, &complete, &err) != M1_OK)
		{
			m1_cli_report(&err);
			return false;
		}
		if (!complete)
			break;
		if (!handle(s, &h, s->in.data + done + sizeof h))
			return false;
		done += sizeof h + h.length;
	}
	m1_buf_consume(&s->in, done);
	/* A prompt does not stay in memory longer than it is needed. */
	if (s->in.len == 0)
		m1_buf_free(&s->in);
	return true;
}

/* false at the end of the input or on an error. */
static bool
read_input(server *s)
{
	ssize_t n;

	if (!m1_buf_reserve(&s->in, sizeof(m1w_header) + M1W_MAX_PART))
		return false;
	n = read(s->fd, s->in.data + s->in.len, s->in.cap - s->in.len);
	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	s->in.len += (size_t) n;
	return n > 0 && handle_input(s);
}

/* Serves until the input ends. true when that was the reason. */
static bool
serve(server *s)
{
	for (;;)
	{
		struct pollfd fds[2] = {{.fd = s->fd, .events = POLLIN}, {.fd = m1_outbox_fd(s->outbox), .events = POLLIN}};
		bool broken;
		bool pending = m1_outbox_pending(s->outbox, &broken);

		if (broken && !pending)
			return false;
		if (pending)
			fds[0].events |= POLLOUT;
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return false;
		if (fds[1].revents != 0)
			m1_outbox_heard(s->outbox);
		if ((fds[0].revents & POLLOUT) && !m1_outbox_write(s->outbox, s->fd))
			return false;
		if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) && !read_input(s))
			return true;
	}
}

/* ---- the step thread ---- */

/*
 * On stderr, the server's log: without the hint, whose settings that log's readers know by other names. The other end
 * of the socket is told it, too.
 */
static int
log_failure(const m1_error *err)
{
	m1_error plain = *err;

	plain.hint[0] = '\0';
	return m1_cli_report(&plain);
}

static void *
step_main(void *arg)
{
	server *s = arg;
	m1_error err;

	while (s->served->step(s->engine, &err) == M1_OK)
		;
	log_failure(&err);
	m1_outbox_break(s->outbox);
	return NULL;
}

/* Tells the other side why there will be no engine. */
static int
refuse(server *s, const m1_error *err)
{
	m1w_failure m = m1w_failure_of(err);
	m1_buf payload = {0};
	m1_buf frame = {0};

	if (m1w_encode_failure(&payload, &m) && m1w_frame_append(&frame, M1W_ERROR, 0, payload.data, payload.len, 0))
		while (frame.len > 0)
		{
			ssize_t n = write(s->fd, frame.data, frame.len);

			if (n <= 0 && errno != EINTR)
				break;
			m1_buf_consume(&frame, n > 0 ? (size_t) n : 0);
		}
	m1_buf_free(&payload);
	m1_buf_free(&frame);
	return log_failure(err);
}

int
m1_serve(const m1_cli *cli, const char *command, const m1_served *served)
{
	server s = {.fd = cli->fd, .served = served};
	m1_engine_events events = {&s,		  on_progress, on_delta,   on_done,	 on_vector,
							   on_failed, on_cache,	   on_learned, on_bytes, on_ready};
	pthread_t stepper;
	m1w_ready info;
	m1_error err;
	bool ended;

	if (cli->fd < 0 || fcntl(cli->fd, F_GETFD) < 0)
	{
		fprintf(stderr, "minimax_m1_engine: %s needs --fd N, an open socket\n", command);
		return 2;
	}
	s.outbox = m1_outbox_create(discard, &s);
	if (s.outbox != NULL && served->open(cli, &events, &s.engine, &err) != M1_OK)
		return refuse(&s, &err);
	s.preparers = m1_preparers_create(&(m1_preparer){&s, prepare, take_back});
	if (s.outbox != NULL)
	{
		/* before the step thread, which may have news of it */
		info = served->info(s.engine);
		on_ready(&s, &info);
	}
	if (s.outbox == NULL || s.preparers == NULL || fcntl(s.fd, F_SETFL, O_NONBLOCK) < 0 ||
		pthread_create(&stepper, NULL, step_main, &s) != 0)
	{
		m1_fail(&err, M1_E_INTERNAL, "could not start serving: %s", strerror(errno));
		return refuse(&s, &err);
	}
	ended = serve(&s);
	/* Nobody is left to hear of what is still running: leave at once, the system takes the memory back. */
	_exit(ended ? 0 : 1);
}
