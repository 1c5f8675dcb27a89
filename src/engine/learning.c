/* learning.c - see learning.h. */
#include "engine/learning.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/kept_bytes.h"
#include "model/adapter_peft.h"

#define PIECE_ROWS 256	  /* tokens that are computed together: a piece is one layer of them */
#define MOST_TRAININGS 16 /* at a time */

typedef struct training
{
	struct training *next;
	m1_adapter *adapter;
	m1_trainer *trainer;
	char base[M1_DIGEST_SIZE];
	size_t name_len;
	char name[M1W_MAX_NAME];
} training;

struct m1_learning
{
	m1_model *model;
	const m1_engine_events *events;
	size_t adapter_bytes;	   /* that adapters may take which are served */
	pthread_mutex_t kept_lock; /* of the next: preparers take from it */
	m1_kept_bytes *kept;	   /* bytes that were put */
	training *trainings;
	m1_buf files;					 /* of a training's adapter, while they are fetched */
	const training *files_of;		 /* NULL = there are none; they are of how it is now */
	m1_learn_request *first, **last; /* in order of arrival */
	training *at_work;				 /* the training whose lesson, the first request, has begun */
	double ms;						 /* that the first request has taken */
};

/* ---- life ---- */

m1_learning *
m1_learning_create(m1_model *model, const m1_engine_events *events, size_t adapter_bytes)
{
	m1_learning *l = calloc(1, sizeof *l);

	if (l == NULL)
		return NULL;
	l->model = model;
	l->events = events;
	l->adapter_bytes = adapter_bytes > 0 ? adapter_bytes : m1_machine_memory() / 4;
	l->last = &l->first;
	pthread_mutex_init(&l->kept_lock, NULL);
	return l;
}

static void
drop_files(m1_learning *l)
{
	m1_buf_free(&l->files);
	l->files_of = NULL;
}

static void
free_training(training *t)
{
	m1_trainer_close(t->trainer);
	m1_adapter_free(t->adapter);
	free(t);
}

void
m1_learning_free(m1_learning *l)
{
	if (l == NULL)
		return;
	for (m1_learn_request *r = l->first, *next; r != NULL; r = next)
	{
		next = r->next;
		m1_learn_request_free(r);
	}
	while (l->kept != NULL)
		m1_kept_drop(&l->kept, l->kept);
	pthread_mutex_destroy(&l->kept_lock);
	drop_files(l);
	for (training *t = l->trainings, *next; t != NULL; t = next)
	{
		next = t->next;
		free_training(t);
	}
	free(l);
}

/* ---- names ---- */

static training **
find_training(m1_learning *l, m1_slice name)
{
	training **at = &l->trainings;

	while (*at != NULL && !((*at)->name_len == name.len && memcmp((*at)->name, name.data, name.len) == 0))
		at = &(*at)->next;
	return at;
}

static m1_status
nothing_called(m1_slice name, const char *what, m1_error *err)
{
	return m1_fail(err, M1_E_NOT_FOUND, "there is no %s \"%.*s\"", what, (int) (name.len < 60 ? name.len : 60),
				   name.data);
}

/* ---- bytes that were put ---- */

/* Those of that name, which are the caller's then, or NULL. whole: only if all of them have been put. */
static m1_kept_bytes *
take_kept(m1_learning *l, m1_slice name, bool whole)
{
	m1_kept_bytes *k;

	pthread_mutex_lock(&l->kept_lock);
	k = m1_kept_find(l->kept, name);
	if (k != NULL && (!whole || k->bytes.len == k->total))
		m1_kept_take(&l->kept, name);
	else
		k = NULL;
	pthread_mutex_unlock(&l->kept_lock);
	return k;
}

static m1_status
put_kept(m1_learning *l, const m1w_bytes *piece, m1_error *err)
{
	m1_status status;

	pthread_mutex_lock(&l->kept_lock);
	status = m1_kept_put(&l->kept, piece, m1_now_ms(), err);
	pthread_mutex_unlock(&l->kept_lock);
	return status;
}

void
m1_learning_prepare(m1_learning *l, m1_learn_request *r)
{
	m1_slice from = {0};

	if (r->type == M1W_SERVE)
		from = r->message.serve.from;
	else if (r->type == M1W_TRAINING)
		from = r->message.training.from;
	if (from.len > 0 && (r->bytes = take_kept(l, from, true)) != NULL)
		r->fault.code = m1_learn_request_make_adapter(r, l->model, &r->fault);
	if (r->adapter != NULL)
		m1_adapter_digest(r->adapter, r->digest);
}

/* ---- bytes that are fetched ---- */

static bool
put_head(const training *t, bool moments, m1_buf *out)
{
	m1_adapter_facts facts = {.updates = moments ? m1_trainer_updates(t->trainer) : 0, .moments = moments};

	memcpy(facts.base, t->base, sizeof facts.base);
	return m1_adapter_put_head(t->adapter, &facts, out);
}

static uint64_t
all_bytes(const training *t, size_t head, bool moments)
{
	return head + (moments ? 3 : 1) * m1_adapter_bytes(t->adapter);
}

/* Appends what a piece, `from` .. `to` of the whole, has of the bytes that begin at *at; *at goes on behind them. */
static void
append_part(m1_buf *out, uint64_t from, uint64_t to, const void *bytes, size_t n, uint64_t *at)
{
	const uint64_t begin = from > *at ? from : *at;
	const uint64_t end = to < *at + n ? to : *at + n;

	if (begin < end)
		m1_buf_append(out, (const char *) bytes + (begin - *at), (size_t) (end - begin));
	*at += n;
}

static m1_status
make_files(m1_learning *l, const training *t, m1_error *err)
{
	const m1_adapter_base base = m1_model_adapter_base(l->model);
	m1_status status;

	if (l->files_of == t)
		return M1_OK;
	drop_files(l);
	status = m1_adapter_put_peft(t->adapter, &base, &l->files, err);
	if (status == M1_OK)
		l->files_of = t;
	else
		drop_files(l);
	return status;
}

/* They are made once, with the first piece, and kept until the last has been fetched or the adapter changes. */
static m1_status
fetch_files(m1_learning *l, const m1_learn_request *r, const training *t, m1_error *err)
{
	const m1w_bytes *m = &r->message.bytes;
	m1_status status = make_files(l, t, err);
	m1w_bytes answer = {.name = m->name, .part = m->part, .offset = m->offset};
	size_t from;

	if (status != M1_OK)
		return status;
	from = m->offset < l->files.len ? (size_t) m->offset : l->files.len;
	answer.total = l->files.len;
	answer.bytes = (m1_slice){l->files.data + from, l->files.len - from < m->most ? l->files.len - from : m->most};
	l->events->bytes(l->events->context, r->id, &answer);
	if (from + answer.bytes.len == l->files.len)
		drop_files(l);
	return M1_OK;
}

static m1_status
fetch(m1_learning *l, const m1_learn_request *r, m1_error *err)
{
	const m1w_bytes *m = &r->message.bytes;
	const training *t = *find_training(l, m->name);
	const bool moments = m->part == M1W_PART_TRAINING;
	m1_buf head = {0};
	m1_buf piece = {0};
	m1w_bytes answer = {.name = m->name, .part = m->part, .offset = m->offset};
	uint64_t at = 0;
	uint64_t to;
	size_t n;
	const float *numbers;
	const m1_parameter *p;

	if (t == NULL)
		return nothing_called(m->name, "training", err);
	if (m->part == M1W_PART_PEFT)
		return fetch_files(l, r, t, err);
	if (!put_head(t, moments, &head))
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter's bytes");
	answer.total = all_bytes(t, head.len, moments);
	to = m->offset > answer.total ? m->offset : m->offset + m->most < answer.total ? m->offset + m->most : answer.total;
	append_part(&piece, m->offset, to, head.data, head.len, &at);
	numbers = m1_adapter_numbers(t->adapter, &n);
	append_part(&piece, m->offset, to, numbers, n * sizeof *numbers, &at);
	p = m1_trainer_parameters(t->trainer, &n);
	for (size_t i = 0; i < n && moments; i++)
	{
		append_part(&piece, m->offset, to, p[i].m, p[i].n * sizeof *p[i].m, &at);
		append_part(&piece, m->offset, to, p[i].v, p[i].n * sizeof *p[i].v, &at);
	}
	answer.bytes = (m1_slice){piece.data, piece.len};
	if (!piece.failed)
		l->events->bytes(l->events->context, r->id, &answer);
	m1_buf_free(&head);
	m1_buf_free(&piece);
	return piece.failed ? m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter's bytes") : M1_OK;
}

/* ---- trainings ---- */

static void
fill_moments(m1_trainer *trainer, const char *from)
{
	size_t n;
	m1_parameter *p = m1_trainer_parameters(trainer, &n);

	for (size_t i = 0; i < n; i++)
	{
		memcpy(p[i].m, from, p[i].n * sizeof *p[i].m);
		from += p[i].n * sizeof *p[i].m;
		memcpy(p[i].v, from, p[i].n * sizeof *p[i].v);
		from += p[i].n * sizeof *p[i].v;
	}
}

static m1_status
check_memory(const m1_learning *l, const training *new, m1_error *err)
{
	size_t bytes = m1_adapter_bytes(new->adapter);

	for (const training *t = l->trainings; t != NULL; t = t->next)
		bytes += m1_adapter_bytes(t->adapter);
	if (bytes <= m1_learn_most_bytes())
		return M1_OK;
	m1_fail(err, M1_E_NO_MEMORY, "the adapters that are trained are too large");
	m1_error_detail(err, "Their numbers would take %zu MB; they may take %zu.", (bytes >> 20) + 1,
					m1_learn_most_bytes() >> 20);
	return M1_E_NO_MEMORY;
}

static m1_status
open_training(m1_learning *l, training *t, const m1_adapter_facts *facts, const char *moments, m1_error *err)
{
	const m1_trainer_options options = {.rows = PIECE_ROWS, .gives_back = true, .adapter = t->adapter};
	m1_status status = check_memory(l, t, err);

	if (status != M1_OK || (status = m1_trainer_open(l->model, &options, &t->trainer, err)) != M1_OK ||
		(status = m1_trainer_moments(t->trainer, err)) != M1_OK)
		return status;
	if (moments != NULL)
	{
		fill_moments(t->trainer, moments);
		m1_trainer_set_updates(t->trainer, facts->updates);
	}
	return M1_OK;
}

/* What has no bytes of its own begins from an adapter that is served, or bytes, which are gone then. */
static m1_status
find_beginning(m1_learning *l, m1_learn_request *r, m1_error *err)
{
	const m1_slice from = r->message.training.from;
	int number;

	if ((r->bytes = take_kept(l, from, false)) != NULL)
		return m1_learn_request_make_adapter(r, l->model, err);
	if ((number = m1_adapter_set_acquire(l->model->adapters, from)) == 0)
		return nothing_called(from, "adapter", err);
	r->adapter = m1_adapter_copy(m1_model_adapter(l->model, number), &l->model->config);
	m1_adapter_set_release(l->model->adapters, number);
	return r->adapter != NULL ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
}

static void
describe(const training *t, m1w_learned *learned)
{
	m1_buf head = {0};

	learned->updates = m1_trainer_updates(t->trainer);
	if (put_head(t, true, &head))
		learned->bytes = all_bytes(t, head.len, true);
	m1_buf_free(&head);
}

static m1_status
check_new(m1_learning *l, m1_slice name, m1_error *err)
{
	int n = 0;

	for (const training *t = l->trainings; t != NULL; t = t->next)
		n++;
	if (*find_training(l, name) != NULL)
		return m1_fail(err, M1_E_EXISTS, "there is a training \"%.*s\" already", (int) (name.len < 60 ? name.len : 60),
					   name.data);
	if (n >= MOST_TRAININGS)
		return m1_fail(err, M1_E_OVERLOADED, "there are %d trainings already", n);
	return M1_OK;
}

/* Where it was not known before. */
static void
tell_digest(m1_learn_request *r, const m1_adapter *a)
{
	if (r->digest[0] == '\0')
		m1_adapter_digest(a, r->digest);
}

static m1_status
begin_training(m1_learning *l, m1_learn_request *r, m1w_learned *learned, m1_error *err)
{
	const m1w_training *m = &r->message.training;
	m1_status status = check_new(l, m->name, err);
	training *t;

	if (status != M1_OK || (r->adapter == NULL && (status = find_beginning(l, r, err)) != M1_OK))
		return status;
	if ((t = calloc(1, sizeof *t)) == NULL)
		return m1_fail(err, M1_E_NO_MEMORY, "out of memory for a training");
	t->name_len = m->name.len;
	memcpy(t->name, m->name.data, m->name.len);
	memcpy(t->base, r->base, sizeof t->base);
	t->adapter = r->adapter;
	r->adapter = NULL;
	if ((status = open_training(l, t, &r->facts, r->moments, err)) != M1_OK)
	{
		free_training(t);
		return status;
	}
	t->next = l->trainings;
	l->trainings = t;
	describe(t, learned);
	tell_digest(r, t->adapter);
	return M1_OK;
}

/* ---- adapters that are served ---- */

static m1_status
check_new_adapter(const m1_learning *l, m1_slice name, m1_error *err)
{
	const int number = m1_adapter_set_acquire(l->model->adapters, name);

	m1_adapter_set_release(l->model->adapters, number);
	return number == 0 ? M1_OK
					   : m1_fail(err, M1_E_EXISTS, "there is an adapter \"%.*s\" already",
								 (int) (name.len < 60 ? name.len : 60), name.data);
}

/* t: the training that it is of, or NULL. */
static m1_status
adapter_to_serve(m1_learning *l, m1_learn_request *r, const training *t, m1_error *err)
{
	const m1_slice from = r->message.serve.from;

	if (t == NULL && r->adapter == NULL)
		return (r->bytes = take_kept(l, from, false)) != NULL ? m1_learn_request_make_adapter(r, l->model, err)
															  : nothing_called(from, "training", err);
	if (t == NULL)
		return M1_OK;
	m1_adapter_free(r->adapter);
	r->digest[0] = '\0';
	r->adapter = m1_adapter_copy(t->adapter, &l->model->config);
	return r->adapter != NULL ? M1_OK : m1_fail(err, M1_E_NO_MEMORY, "out of memory for an adapter");
}

/* Gives up what was lent, until there is room for an adapter of so many bytes. */
static m1_status
make_room(m1_learning *l, size_t bytes, m1_error *err)
{
	m1_adapter_set *set = l->model->adapters;

	while (bytes <= l->adapter_bytes && bytes + m1_adapter_set_bytes(set) > l->adapter_bytes)
		if (!m1_adapter_set_give_up(set))
			break;
	if (bytes + m1_adapter_set_bytes(set) <= l->adapter_bytes)
		return M1_OK;
	m1_fail(err, M1_E_NO_MEMORY, "there is no room for one more adapter");
	m1_error_detail(err, "It takes %zu kB, those that are in use %zu; together they may take %zu.", (bytes >> 10) + 1,
					m1_adapter_set_bytes(set) >> 10, l->adapter_bytes >> 10);
	m1_error_hint(err, "Raise {adapter_memory}.");
	return M1_E_NO_MEMORY;
}

/* Bytes are gone then, whatever comes of it. */
static m1_status
serve(m1_learning *l, m1_learn_request *r, m1_error *err)
{
	const m1w_serve *m = &r->message.serve;
	const training *t = *find_training(l, m->from);
	m1_status status = check_new_adapter(l, m->name, err);

	if (status != M1_OK && t == NULL)
		m1_kept_free(take_kept(l, m->from, false));
	if (status != M1_OK || (status = adapter_to_serve(l, r, t, err)) != M1_OK ||
		(status = make_room(l, m1_adapter_bytes(r->adapter), err)) != M1_OK ||
		(status = m1_model_add_adapter(l->model, m->name, r->adapter, err)) != M1_OK)
		return status;
	tell_digest(r, r->adapter);
	r->adapter = NULL; /* the model's now */
	if (t == NULL)
		m1_adapter_set_lend(l->model->adapters, m->name);
	return M1_OK;
}

static m1_status
forget(m1_learning *l, const m1w_forget *m, m1_error *err)
{
	training **t = find_training(l, m->name);
	m1_kept_bytes *k;
	training *gone = *t;

	if (m->kind == M1W_KEPT_ADAPTER)
		return m1_adapter_set_drop(l->model->adapters, m->name) ? M1_OK : nothing_called(m->name, "adapter", err);
	if (m->kind == M1W_KEPT_BYTES)
	{
		if ((k = take_kept(l, m->name, false)) == NULL)
			return nothing_called(m->name, "name of bytes", err);
		m1_kept_free(k);
		return M1_OK;
	}
	if (gone == NULL)
		return nothing_called(m->name, "training", err);
	if (l->files_of == gone)
		drop_files(l);
	*t = gone->next;
	free_training(gone);
	return M1_OK;
}

/* ---- lessons ---- */

static void
tell_lesson(m1_learning *l, const m1_learn_request *r, const m1_batch_result *b, const m1_update *update)
{
	m1w_learned learned = {
		.dropped = update->dropped,
		.loss = b->loss,
		.balance = b->balance,
		.most_load = b->most_load,
		.entropy = b->entropy,
		.gradient_norm = update->norm,
		.old_difference = b->old_difference,
		.old_mean = b->old_mean,
		.tokens = b->tokens,
		.rows = b->rows,
		.learned = b->learned,
		.predicted = b->predicted,
		.clipped = b->clipped,
		.rerouted = b->rerouted,
		.seconds = l->ms / 1000.0,
		.logprobs = {(const char *) r->logprobs, r->logprobs != NULL ? r->tokens * sizeof *r->logprobs : 0},
	};

	describe(l->at_work, &learned);
	l->events->learned(l->events->context, r->id, &learned);
}

static bool
are_sound(const float *logprobs, size_t n)
{
	for (size_t i = 0; logprobs != NULL && i < n; i++)
		if (!(fabsf(logprobs[i]) <= (float) M1_MOST_MEASURED)) /* NaN is not, either */
			return false;
	return true;
}

/*
 * An update that is not sound is dropped, which is told as such. Who asks for nothing but numbers gets them, or hears
 * that there are none.
 */
static m1_status
check_lesson(const m1_learn_request *r, const m1_batch_result *b, m1_error *err)
{
	const bool sound = r->message.lesson.update || m1_batch_is_sound(b);

	return sound && are_sound(r->logprobs, r->tokens) ? M1_OK : m1_model_not_finite(err);
}

/* A piece of a lesson; *done: it has ended, and was told. */
static m1_status
learn(m1_learning *l, m1_learn_request *r, bool *done, m1_error *err)
{
	const m1w_lesson *m = &r->message.lesson;
	const double began = m1_now_ms();
	m1_batch_result result;
	m1_update update = {0};
	m1_status status;

	*done = false;
	if (l->at_work == NULL)
	{
		training *t = *find_training(l, m->training);

		if (t == NULL)
			return nothing_called(m->training, "training", err);
		if ((status = m1_trainer_begin(t->trainer, r->sequences, r->n, &r->objective, m->update != 0, err)) != M1_OK)
			return status;
		if (l->files_of == t)
			drop_files(l);
		l->at_work = t;
		l->ms = m1_now_ms() - began;
		return M1_OK;
	}
	status = m1_trainer_piece(l->at_work->trainer, done, &result, err);
	if (status == M1_OK && *done)
		status = check_lesson(r, &result, err);
	if (status == M1_OK && *done && m->update)
		status = m1_trainer_update(l->at_work->trainer, &r->adamw, &result, &update, err);
	l->ms += m1_now_ms() - began;
	if (status == M1_OK && *done)
		tell_lesson(l, r, &result, &update);
	return status;
}

/* ---- the order ---- */

void
m1_learning_add(m1_learning *l, m1_learn_request *r)
{
	r->next = NULL;
	*l->last = r;
	l->last = &r->next;
}

static void
take_out(m1_learning *l, m1_learn_request **at)
{
	m1_learn_request *r = *at;

	if (r == l->first && l->at_work != NULL)
	{
		m1_trainer_abandon(l->at_work->trainer);
		l->at_work = NULL;
	}
	*at = r->next;
	if (r->next == NULL)
		l->last = at;
	m1_learn_request_free(r);
}

static void
fail_at(m1_learning *l, m1_learn_request **at, const m1_error *error)
{
	l->events->failed(l->events->context, (*at)->id, error);
	take_out(l, at);
}

bool
m1_learning_cancel(m1_learning *l, uint64_t id)
{
	m1_learn_request **at = &l->first;
	m1_error error;

	while (*at != NULL && (*at)->id != id)
		at = &(*at)->next;
	if (*at == NULL)
		return false;
	m1_fail(&error, M1_E_CANCELLED, "the request was cancelled");
	fail_at(l, at, &error);
	return true;
}

void
m1_learning_fail(m1_learning *l, const m1_error *error)
{
	while (l->first != NULL)
		fail_at(l, &l->first, error);
}

bool
m1_learning_pending(const m1_learning *l)
{
	return l->first != NULL;
}

/* All but lessons are one piece. */
static m1_status
do_at_once(m1_learning *l, m1_learn_request *r, m1_error *err)
{
	m1w_learned learned = {.updates = 0};
	m1_status status;

	if (r->fault.code != M1_OK)
	{
		*err = r->fault;
		return err->code;
	}
	switch (r->type)
	{
		case M1W_FETCH:
			return fetch(l, r, err);
		case M1W_PUT:
			status = put_kept(l, &r->message.bytes, err);
			break;
		case M1W_TRAINING:
			status = begin_training(l, r, &learned, err);
			break;
		case M1W_SERVE:
			status = serve(l, r, err);
			break;
		default:
			status = forget(l, &r->message.forget, err);
			break;
	}
	if (status != M1_OK)
		return status;
	learned.digest = m1_slice_of(r->digest);
	l->events->learned(l->events->context, r->id, &learned);
	return M1_OK;
}

void
m1_learning_piece(m1_learning *l)
{
	m1_learn_request *r = l->first;
	bool done = true;
	m1_error error;
	m1_status status = r->type == M1W_LESSON ? learn(l, r, &done, &error) : do_at_once(l, r, &error);

	if (status != M1_OK)
		fail_at(l, &l->first, &error);
	else if (done)
		take_out(l, &l->first);
}
