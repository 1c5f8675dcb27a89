/*
 * test_engine_learning.c - learning in the engine that serves: what is sampled is what is trained on, to a figure; an
 * adapter that is trained, kept as bytes, gone on with to the same bits, and served; requests beside it; and what is
 * refused.
 */
#define _GNU_SOURCE /* realpath, symlink */
#include "engine_testing.h"

#include <math.h>
#include <time.h>

#include "engine/kept_reply.h"

static void
send_learn(m1_engine *e, uint64_t id, m1w_type type, m1_buf *payload)
{
	m1_error err;

	assert_ok(m1_engine_learn(e, id, type, payload, NULL, &err));
}

#define LEARN(e, id, type, name, message)                        \
	do                                                           \
	{                                                            \
		m1_buf learn_payload = {0};                              \
		assert_true(m1w_encode_##name(&learn_payload, message)); \
		send_learn(e, id, type, &learn_payload);                 \
	} while (0)

/* The next id of a request. */
static uint64_t last_id;

static const outcome *
finished(m1_engine *e, uint64_t id)
{
	run_all(e);
	if (outcomes[id].failed)
		fail_msg("request %d: %s (%s)", (int) id, outcomes[id].error.message, outcomes[id].error.detail);
	assert_true(outcomes[id].done);
	return &outcomes[id];
}

static m1_engine *
start(m1_engine_options options)
{
	last_id = 0;
	return open_engine(options);
}

static const outcome *
begin_training(m1_engine *e, const m1w_training *m)
{
	LEARN(e, ++last_id, M1W_TRAINING, training, m);
	return finished(e, last_id);
}

static m1w_training
usual_training(const char *name, const char *from)
{
	return (m1w_training){.name = m1_slice_of(name),
						  .from = m1_slice_of(from),
						  .rank = 4,
						  .expert_rank = 1,
						  .targets = m1_slice_of("attention,experts,router"),
						  .alpha = 32,
						  .seed = 3};
}

static const outcome *
begin(m1_engine *e, const char *name, const char *from)
{
	const m1w_training m = usual_training(name, from);

	return begin_training(e, &m);
}

static const outcome *
serve(m1_engine *e, const char *name, const char *from)
{
	const m1w_serve m = {.name = m1_slice_of(name), .from = m1_slice_of(from)};

	LEARN(e, ++last_id, M1W_SERVE, serve, &m);
	return finished(e, last_id);
}

static const outcome *
put(m1_engine *e, const char *name, const m1_buf *bytes, size_t most)
{
	for (size_t at = 0; at < bytes->len; at += most)
	{
		const size_t n = bytes->len - at < most ? bytes->len - at : most;
		const m1w_bytes m = {
			.name = m1_slice_of(name), .total = bytes->len, .offset = at, .bytes = {bytes->data + at, n}};

		LEARN(e, ++last_id, M1W_PUT, bytes, &m);
		finished(e, last_id);
	}
	return &outcomes[last_id];
}

static m1_buf
fetch(m1_engine *e, const char *name, m1w_part part, uint32_t most)
{
	m1_buf all = {0};
	uint64_t total = 1;

	while (all.len < total)
	{
		const m1w_bytes m = {.name = m1_slice_of(name), .part = (uint8_t) part, .offset = all.len, .most = most};
		const outcome *o;

		LEARN(e, ++last_id, M1W_FETCH, bytes, &m);
		o = finished(e, last_id);
		total = o->learned.bytes;
		assert_true(o->content.len > 0 && o->content.len <= most);
		m1_buf_append(&all, o->content.data, o->content.len);
	}
	assert_int_equal(all.len, total);
	return all;
}

/* ---- lessons ---- */

/* A lesson of one reply that was kept. */
typedef struct lesson
{
	m1w_lesson m;
	m1_buf ids, logprobs, masked;
	int32_t length, prompt, share;
	float advantage;
} lesson;

static void
fill_lesson(lesson *l, const char *training, const outcome *o, m1w_loss loss)
{
	const size_t prompt = o->kept[0].len / sizeof(int32_t);
	const float none = 0.0f;

	*l = (lesson){.share = -1, .advantage = 1.0f, .prompt = (int32_t) prompt};
	m1_buf_append(&l->ids, o->kept[0].data, o->kept[0].len);
	m1_buf_append(&l->ids, o->ids.data, o->ids.len);
	for (size_t i = 0; i < prompt; i++)
		m1_buf_append(&l->logprobs, &none, sizeof none);
	m1_buf_append(&l->logprobs, o->kept[1].data, o->kept[1].len);
	for (size_t i = 0; i < o->kept[3].len / sizeof(int32_t); i++)
	{
		int32_t at;

		memcpy(&at, o->kept[3].data + i * sizeof at, sizeof at);
		at += (int32_t) prompt;
		m1_buf_append(&l->masked, &at, sizeof at);
	}
	l->length = (int32_t) (l->ids.len / sizeof(int32_t));
	l->m = (m1w_lesson){
		.training = m1_slice_of(training),
		.loss = (uint8_t) loss,
		.cap = 5,
		.low = 0.2f,
		.high = 0.2f,
		.temperature = 1,
		.rate = 1e-2f,
		.beta1 = 0.9f,
		.beta2 = 0.95f,
		.eps = 1e-15f,
		.clip = 1,
		.lengths = {&l->length, 1},
		.prompts = {&l->prompt, 1},
		.advantages = {(const char *) &l->advantage, loss == M1W_LOSS_CE ? 0 : sizeof l->advantage},
		.ids = {(const int32_t *) (const void *) l->ids.data, (size_t) l->length},
		.old_logprobs = {l->logprobs.data, l->logprobs.len},
		.experts = {o->kept[2].data, o->kept[2].len},
		.masked = {(const int32_t *) (const void *) l->masked.data, l->masked.len / sizeof(int32_t)},
		.masks = {o->kept[4].data, o->kept[4].len},
		.mask_of = {(const int32_t *) (const void *) o->kept[5].data, o->kept[5].len / sizeof(int32_t)},
	};
}

static void
free_lesson(lesson *l)
{
	m1_buf_free(&l->ids);
	m1_buf_free(&l->logprobs);
	m1_buf_free(&l->masked);
}

static const outcome *
learn(m1_engine *e, lesson *l, bool update)
{
	l->m.update = update;
	LEARN(e, ++last_id, M1W_LESSON, lesson, &l->m);
	return finished(e, last_id);
}

static m1w_generate
sampled(const char *text, const char *adapter)
{
	m1w_generate g = prompt(text);

	g.adapter = m1_slice_of(adapter);
	g.temperature = 1;
	g.top_p = 1;
	g.seed = 5;
	g.max_tokens = 60;
	g.thinking_budget = 0;
	g.keep = 1;
	return g;
}

static const outcome *
sample(m1_engine *e, const m1w_generate *g)
{
	submit(e, ++last_id, g);
	return finished(e, last_id);
}

/* ---- sampling and training agree ---- */

/* The same lesson, in which each token has a mask of its own, has the same bits. */
static void
check_own_masks(m1_engine *e, lesson *l, const outcome *learned)
{
	const size_t n = l->m.masked.len;
	const size_t len = ((size_t) m1_engine_model(e)->config.vocab_size + 63) / 64 * sizeof(uint64_t);
	m1_buf masks = {0};
	m1_buf logprobs = {0};

	m1_buf_append(&logprobs, learned->content.data, learned->content.len);
	for (size_t i = 0; i < n; i++)
		m1_buf_append(&masks, l->m.masks.data + (size_t) m1w_id_at(l->m.mask_of, i) * len, len);
	l->m.masks = (m1_slice){masks.data, masks.len};
	l->m.mask_of = (m1w_id_slice){NULL, 0};
	learned = learn(e, l, false);
	assert_int_equal(learned->content.len, logprobs.len);
	assert_memory_equal(learned->content.data, logprobs.data, logprobs.len);
	m1_buf_free(&masks);
	m1_buf_free(&logprobs);
}

/* Equal masks are kept once: of a large vocabulary, one takes 25 kB. */
static void
check_masks_differ(m1_engine *e, const lesson *l)
{
	const size_t len = ((size_t) m1_engine_model(e)->config.vocab_size + 63) / 64 * sizeof(uint64_t);
	const size_t n = l->m.masks.len / len;

	assert_int_equal(l->m.masks.len % len, 0);
	assert_int_equal(l->m.mask_of.len, l->m.masked.len);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < i; k++)
			assert_memory_not_equal(l->m.masks.data + i * len, l->m.masks.data + k * len, len);
}

/* Numbers of what was sampled against the training's forward pass. */
static void
check_agreement(m1_engine *e, const m1w_generate *g, double tolerance)
{
	const outcome *o = sample(e, g);
	const outcome *learned;
	lesson l;

	assert_int_equal(o->kept[0].len / sizeof(int32_t), o->facts.prompt_tokens);
	assert_int_equal(o->kept[1].len / sizeof(float), o->ids.len / sizeof(int32_t));
	fill_lesson(&l, "t", o, M1W_LOSS_CISPO);
	l.m.temperature = g->temperature;
	l.m.want_logprobs = 1;
	learned = learn(e, &l, false);
	if (!(learned->learned.old_difference < tolerance) || learned->learned.rerouted != 0)
		fail_msg("log-probabilities differ by up to %g, experts of %d rows", learned->learned.old_difference,
				 (int) learned->learned.rerouted);
	assert_true(learned->learned.old_mean <= learned->learned.old_difference);
	assert_int_equal(learned->content.len, l.ids.len);
	assert_int_equal(learned->learned.predicted, o->ids.len / sizeof(int32_t));
	if (l.m.masked.len > 0)
	{
		check_masks_differ(e, &l);
		check_own_masks(e, &l, learned);
	}
	free_lesson(&l);
}

/* Of a trained adapter, after a prompt whose beginning came from the cache, at a temperature, and under a constraint. */
static void
test_sampling_agrees(void **state)
{
	m1_engine *e = start((m1_engine_options){.prefix_cache_bytes = 64u << 20});
	m1w_generate g = sampled("Tell me of the sea.", "");
	lesson l;

	(void) state;
	begin(e, "t", "");
	check_agreement(e, &g, 1e-4);
	fill_lesson(&l, "t", sample(e, &g), M1W_LOSS_CE);
	for (int i = 0; i < 3; i++)
		learn(e, &l, true);
	free_lesson(&l);
	serve(e, "a", "t");
	g = sampled("Tell me of the sea.", "a");
	check_agreement(e, &g, 1e-4);
	check_agreement(e, &g, 1e-4);
	g.temperature = 0.5f;
	check_agreement(e, &g, 1e-4);
	g.constraint = M1W_CONSTRAINT_CHOICES;
	g.constraint_text = m1_slice_of("[\"yes\", \"no\", \"perhaps not\"]");
	check_agreement(e, &g, 1e-4);
	g.constraint = M1W_CONSTRAINT_NONE;
	g.thinking_budget = 3; /* the closing tag is written */
	check_agreement(e, &g, 1e-4);
	m1_engine_close(e);
}

static void
test_quantized_base_agrees(void **state)
{
	m1_engine *e = start((m1_engine_options){.weight_format = M1_WEIGHTS_Q8_0});
	m1w_generate g = sampled("Tell me of the sea.", "");

	(void) state;
	begin(e, "t", "");
	check_agreement(e, &g, 2e-2); /* keys and values of serving are BF16 then */
	m1_engine_close(e);
}

/* ---- what is learnt ---- */

static void
test_learns_and_serves(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	m1w_generate g = sampled("Tell me of the sea.", "");
	const outcome *first, *o;
	double before;
	lesson l;

	(void) state;
	o = begin(e, "t", "");
	assert_int_equal(o->reasoning.len, 16);
	assert_true(o->learned.bytes > 1000);
	first = sample(e, &g);
	fill_lesson(&l, "t", first, M1W_LOSS_CE);
	l.m.rate = 2e-3f;
	before = learn(e, &l, false)->learned.loss;
	for (int i = 0; i < 20; i++)
	{
		o = learn(e, &l, true);
		assert_int_equal(o->learned.updates, i + 1);
		assert_true(o->learned.gradient_norm > 0 && o->learned.dropped == 0);
	}
	assert_true(learn(e, &l, false)->learned.loss < 0.7 * before);
	/* without the adapter, the model is as it was; with it, what it learnt is likelier */
	assert_true(same_text(&sample(e, &g)->ids, &first->ids));
	serve(e, "a", "t");
	g.adapter = m1_slice_of("a");
	g.temperature = 0;
	o = sample(e, &g);
	assert_true(same_text(&o->ids, &first->ids));
	free_lesson(&l);
	m1_engine_close(e);
}

/* ---- what a loss is a mean over ---- */

#define BEGINNING 7 /* tokens of the second sequence */

/* By the log-probabilities that came back: of all tokens behind a prompt, but never the first of a sequence. */
static double
mean_by_weights(const m1w_lesson *m, m1_slice logprobs)
{
	double sum = 0.0;
	double weights = 0.0;
	size_t at = 0;

	for (size_t i = 0; i < m->lengths.len; i++)
		for (int32_t t = 0; t < m->lengths.data[i]; t++, at++)
			if (t >= m->prompts.data[i] && t > 0)
			{
				float logprob;
				float weight = 1.0f;

				memcpy(&logprob, logprobs.data + at * sizeof logprob, sizeof logprob);
				if (m->weights.len > 0)
					memcpy(&weight, m->weights.data + at * sizeof weight, sizeof weight);
				sum -= (double) weight * (double) logprob;
				weights += weight;
			}
	return sum / weights;
}

static double
check_mean(m1_engine *e, const m1w_lesson *m)
{
	const outcome *o;

	LEARN(e, ++last_id, M1W_LESSON, lesson, m);
	o = finished(e, last_id);
	assert_true(fabs(o->learned.loss - mean_by_weights(m, (m1_slice){o->content.data, o->content.len})) < 1e-5);
	return o->learned.loss;
}

/* Of a reply behind its prompt, and of a beginning that is all learnt, with weights and without. */
static void
test_mean_by_weights(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	m1w_generate g = sampled("Tell me of the sea.", "");
	int32_t beginning[BEGINNING];
	m1_buf weights = {0};
	double plain;
	lesson l;

	(void) state;
	begin(e, "t", "");
	fill_lesson(&l, "t", sample(e, &g), M1W_LOSS_CE);
	memcpy(beginning, l.ids.data, sizeof beginning);
	m1_buf_append(&l.ids, beginning, sizeof beginning);
	for (size_t i = 0; i < l.ids.len / sizeof(int32_t); i++)
		m1_buf_append(&weights, &(float){(float) (i % 5)}, sizeof(float));
	l.m.lengths = (m1w_id_slice){(const int32_t[]){l.length, BEGINNING}, 2};
	l.m.prompts = (m1w_id_slice){(const int32_t[]){l.prompt, 0}, 2};
	l.m.ids = (m1w_id_slice){(const int32_t *) (const void *) l.ids.data, l.ids.len / sizeof(int32_t)};
	l.m.old_logprobs = l.m.experts = l.m.masks = (m1_slice){0};
	l.m.masked = l.m.mask_of = (m1w_id_slice){0};
	l.m.want_logprobs = 1;
	plain = check_mean(e, &l.m);
	l.m.weights = (m1_slice){weights.data, weights.len};
	assert_true(fabs(check_mean(e, &l.m) - plain) > 1e-2);
	m1_buf_free(&weights);
	free_lesson(&l);
	m1_engine_close(e);
}

/* ---- the same bits ---- */

/* Fetched, put into another engine and gone on with, a training gives what it would have given. */
static void
test_goes_on_to_the_same_bits(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	m1w_generate g = sampled("Tell me of the sea.", "");
	m1_buf middle, end, again, adapter, adapter_again;
	lesson l;

	(void) state;
	begin(e, "t", "");
	fill_lesson(&l, "t", sample(e, &g), M1W_LOSS_CISPO);
	learn(e, &l, true);
	learn(e, &l, true);
	middle = fetch(e, "t", M1W_PART_TRAINING, 100001);
	learn(e, &l, true);
	end = fetch(e, "t", M1W_PART_TRAINING, 1u << 20);
	adapter = fetch(e, "t", M1W_PART_ADAPTER, 1u << 20);
	m1_engine_close(e);
	free_lesson(&l);

	e = start((m1_engine_options){.threads = 1});
	fill_lesson(&l, "t", sample(e, &g), M1W_LOSS_CISPO);
	put(e, "kept", &middle, 77777);
	assert_int_equal(begin(e, "t", "kept")->learned.updates, 2);
	assert_int_equal(learn(e, &l, true)->learned.updates, 3);
	again = fetch(e, "t", M1W_PART_TRAINING, 1u << 20);
	adapter_again = fetch(e, "t", M1W_PART_ADAPTER, 1u << 20);
	assert_true(same_text(&again, &end) && same_text(&adapter_again, &adapter) && !same_text(&end, &middle));

	/* the adapter alone, served from its bytes, is the training's */
	put(e, "bytes", &adapter, 1u << 20);
	serve(e, "of bytes", "bytes");
	m1_buf_append(&again, outcomes[last_id].reasoning.data, outcomes[last_id].reasoning.len);
	serve(e, "of training", "t");
	assert_memory_equal(again.data + again.len - 16, outcomes[last_id].reasoning.data, 16);
	assert_int_equal(begin(e, "another", "of training")->learned.updates, 0);
	m1_buf_free(&middle);
	m1_buf_free(&end);
	m1_buf_free(&again);
	m1_buf_free(&adapter);
	m1_buf_free(&adapter_again);
	free_lesson(&l);
	m1_engine_close(e);
}

/* The files of PEFT are another form of it. */
static void
test_files(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	m1w_generate g = sampled("Tell me of the sea.", "");
	char digest[16];
	m1_buf files;
	lesson l;

	(void) state;
	begin(e, "t", "");
	fill_lesson(&l, "t", sample(e, &g), M1W_LOSS_CISPO);
	learn(e, &l, true);
	memcpy(digest, serve(e, "a", "t")->reasoning.data, sizeof digest);
	files = fetch(e, "t", M1W_PART_PEFT, 100001);
	assert_memory_equal(files.data, "m1peft01", 8);
	put(e, "files", &files, 77777);
	assert_memory_equal(serve(e, "of files", "files")->reasoning.data, digest, sizeof digest);
	put(e, "files", &files, 1u << 20);
	assert_memory_equal(begin(e, "another", "files")->reasoning.data, digest, sizeof digest);
	/* what has been fetched in part is of before the next lesson */
	LEARN(e, ++last_id, M1W_FETCH, bytes,
		  &((m1w_bytes){.name = m1_slice_of("t"), .part = M1W_PART_PEFT, .most = 1000}));
	finished(e, last_id);
	learn(e, &l, true);
	memcpy(digest, serve(e, "later", "t")->reasoning.data, sizeof digest);
	m1_buf_free(&files);
	files = fetch(e, "t", M1W_PART_PEFT, 100001);
	put(e, "files", &files, 1u << 20);
	assert_memory_equal(serve(e, "of later files", "files")->reasoning.data, digest, sizeof digest);
	files.len -= 4;
	put(e, "files", &files, 1u << 20);
	LEARN(e, ++last_id, M1W_SERVE, serve, &((m1w_serve){.name = m1_slice_of("b"), .from = m1_slice_of("files")}));
	run_all(e);
	assert_int_equal(outcomes[last_id].error.code, M1_E_CORRUPT);
	m1_buf_free(&files);
	free_lesson(&l);
	m1_engine_close(e);
}

/* ---- beside requests ---- */

/* How many tokens a request has when the lesson beside it ends. */
static int
tokens_beside(double share)
{
	m1_engine *e = start((m1_engine_options){.learning_share = share});
	m1w_generate g = sampled("Tell me of the sea.", "");
	bool busy = true;
	uint64_t request;
	lesson l;
	m1_error err;

	begin(e, "t", "");
	fill_lesson(&l, "t", sample(e, &g), M1W_LOSS_CISPO);
	g = (m1w_generate){
		.ids = l.m.ids, .max_tokens = 300, .top_p = 1, .temperature = 1, .seed = 1, .system = m1_slice_of("")};
	submit(e, request = ++last_id, &g);
	assert_ok(m1_engine_step(e, &busy, &err));
	l.m.update = 1;
	LEARN(e, ++last_id, M1W_LESSON, lesson, &l.m);
	while (busy && !outcomes[last_id].done && !outcomes[request].done)
		assert_ok(m1_engine_step(e, &busy, &err));
	busy = outcomes[request].done;
	run_all(e);
	assert_true(outcomes[last_id].done && outcomes[request].done);
	free_lesson(&l);
	m1_engine_close(e);
	return busy ? 300 : 0;
}

static void
test_share(void **state)
{
	(void) state;
	assert_int_equal(tokens_beside(0.0), 300); /* not before the request has ended */
	assert_int_equal(tokens_beside(0.9), 0);   /* long before */
}

/* One piece at most goes before a request's next token, and a cancelled lesson leaves the training as it was. */
static void
test_cancel(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	m1w_generate g = sampled("Tell me of the sea.", "");
	m1_buf before, after;
	lesson l;
	bool busy;
	m1_error err;

	(void) state;
	begin(e, "t", "");
	fill_lesson(&l, "t", sample(e, &g), M1W_LOSS_CISPO);
	before = fetch(e, "t", M1W_PART_TRAINING, 1u << 20);
	l.m.update = 1;
	LEARN(e, ++last_id, M1W_LESSON, lesson, &l.m);
	LEARN(e, ++last_id, M1W_LESSON, lesson, &l.m);
	for (int i = 0; i < 7; i++)
		assert_ok(m1_engine_step(e, &busy, &err));
	assert_false(outcomes[last_id - 1].done);
	m1_engine_cancel(e, last_id);
	m1_engine_cancel(e, last_id - 1);
	run_all(e);
	assert_true(outcomes[last_id].failed && outcomes[last_id - 1].failed);
	assert_int_equal(outcomes[last_id].error.code, M1_E_CANCELLED);
	after = fetch(e, "t", M1W_PART_TRAINING, 1u << 20);
	assert_true(same_text(&before, &after));
	m1_buf_free(&before);
	m1_buf_free(&after);
	free_lesson(&l);
	m1_engine_close(e);
}

/* An adapter that is dropped goes on for the request that uses it, and is not found by the next. */
static void
test_forget(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	m1w_generate g = sampled("Tell me of the sea.", "a");
	const m1w_forget adapter = {.kind = M1W_KEPT_ADAPTER, .name = m1_slice_of("a")};
	const m1w_forget training = {.kind = M1W_KEPT_TRAINING, .name = m1_slice_of("t")};
	uint64_t request;
	bool busy;
	m1_error err;

	(void) state;
	begin(e, "t", "");
	serve(e, "a", "t");
	submit(e, request = ++last_id, &g);
	assert_ok(m1_engine_step(e, &busy, &err));
	LEARN(e, ++last_id, M1W_FORGET, forget, &adapter);
	finished(e, last_id);
	assert_true(outcomes[request].done);
	assert_int_equal(m1_engine_generate(e, ++last_id, &g, NULL, &err), M1_E_NOT_FOUND);
	serve(e, "a", "t");
	assert_true(same_text(&sample(e, &g)->ids, &outcomes[request].ids));
	LEARN(e, ++last_id, M1W_FORGET, forget, &training);
	finished(e, last_id);
	begin(e, "t", "a");
	m1_engine_close(e);
}

/* ---- what is lent ---- */

static void
refused_later(m1_engine *e, m1_status code, const char *message)
{
	run_all(e);
	assert_true(outcomes[last_id].failed);
	assert_int_equal(outcomes[last_id].error.code, code);
	if (strstr(outcomes[last_id].error.message, message) == NULL)
		fail_msg("\"%s\" instead of \"%s\"", outcomes[last_id].error.message, message);
}

/* The error of whoever asks for an adapter that is not there. */
static void
is_gone(m1_engine *e, const char *adapter)
{
	m1w_generate g = sampled("Tell me of the sea.", adapter);
	m1_error err;

	assert_int_equal(m1_engine_generate(e, ++last_id, &g, NULL, &err), M1_E_NOT_FOUND);
}

static void
give(m1_engine *e, const char *name, const m1_buf *bytes)
{
	put(e, name, bytes, 1u << 20);
	serve(e, name, name);
}

static void
use(m1_engine *e, const char *adapter)
{
	m1w_generate g = sampled("Tell me of the sea.", adapter);

	g.max_tokens = 3;
	sample(e, &g);
}

/* Of the one that a training begins with. */
static m1_buf
fetch_new_adapter(m1w_training m, uint32_t piece)
{
	m1_engine *e = start((m1_engine_options){0});
	m1_buf bytes;

	begin_training(e, &m);
	bytes = fetch(e, "t", M1W_PART_ADAPTER, piece);
	m1_engine_close(e);
	return bytes;
}

static m1_buf
bytes_of_adapter(void)
{
	return fetch_new_adapter(usual_training("t", ""), 1u << 20);
}

/* There is room for three; the one that was not used for the longest time goes, unless it was made of a training. */
static void
test_gives_up_what_is_not_used(void **state)
{
	const m1w_serve look = {.name = m1_slice_of("one"), .from = m1_slice_of("one")};
	m1w_generate long_one = sampled("Tell me of the sea.", "two");
	m1_buf bytes = bytes_of_adapter();
	m1_engine *e = start((m1_engine_options){.adapter_bytes = bytes.len * 7 / 2});
	bool busy;
	m1_error err;

	(void) state;
	begin(e, "t", "");
	serve(e, "of a training", "t");
	give(e, "one", &bytes);
	give(e, "two", &bytes);
	use(e, "one");
	give(e, "three", &bytes);
	is_gone(e, "two");
	use(e, "one");
	give(e, "two", &bytes);
	is_gone(e, "three");
	LEARN(e, ++last_id, M1W_SERVE, serve, &look); /* to which a look is a use */
	refused_later(e, M1_E_EXISTS, "already");
	submit(e, ++last_id, &long_one);
	assert_ok(m1_engine_step(e, &busy, &err));
	give(e, "three", &bytes);
	is_gone(e, "one");
	LEARN(e, ++last_id, M1W_SERVE, serve, &look);
	refused_later(e, M1_E_NOT_FOUND, "there is no training");
	use(e, "of a training");
	m1_engine_close(e);
	m1_buf_free(&bytes);
}

/* What requests use stays. */
static void
test_gives_up_nothing_in_use(void **state)
{
	m1w_generate g = sampled("Tell me of the sea.", "one");
	const m1w_serve two = {.name = m1_slice_of("two"), .from = m1_slice_of("two")};
	m1_buf bytes = bytes_of_adapter();
	m1_engine *e = start((m1_engine_options){.adapter_bytes = bytes.len * 3 / 2, .learning_share = 0.5});
	m1_buf payload = {0};
	uint64_t request;
	m1_error err;

	(void) state;
	give(e, "one", &bytes);
	put(e, "two", &bytes, 1u << 20);
	submit(e, request = ++last_id, &g); /* it has the adapter from here on */
	assert_true(m1w_encode_serve(&payload, &two));
	assert_ok(m1_engine_learn(e, ++last_id, M1W_SERVE, &payload, NULL, &err));
	refused_later(e, M1_E_NO_MEMORY, "no room for one more adapter");
	assert_true(outcomes[request].done);
	give(e, "two", &bytes);
	is_gone(e, "one");
	m1_engine_close(e);
	m1_buf_free(&bytes);
}

/* The bytes of one with so many numbers that to look at them takes a while. */
static m1_buf
bytes_of_large_adapter(void)
{
	const m1w_training m = {.name = m1_slice_of("t"), .rank = 1024, .targets = m1_slice_of("attention"), .alpha = 32};

	return fetch_new_adapter(m, 16u << 20);
}

/* What takes as long as an adapter is large is done before its turn comes, on the asker's time: steps are everybody's. */
static void
test_large_adapters_keep_no_step(void **state)
{
	const m1w_serve large = {.name = m1_slice_of("large"), .from = m1_slice_of("large")};
	m1_buf bytes = bytes_of_large_adapter();
	m1_engine *e = start((m1_engine_options){.adapter_bytes = 2 * bytes.len});
	clock_t began;
	clock_t asked;
	clock_t done;

	(void) state;
	assert_true(bytes.len > 30u << 20);
	put(e, "large", &bytes, 16u << 20);
	began = clock();
	LEARN(e, ++last_id, M1W_SERVE, serve, &large);
	asked = clock();
	finished(e, last_id);
	done = clock();
	if (done - asked > (asked - began) / 3)
		fail_msg("%ld us of a step, after %ld of preparation", (long) (done - asked), (long) (asked - began));
	use(e, "large");
	m1_engine_close(e);
	m1_buf_free(&bytes);
}

/* ---- what is refused ---- */

static void
refused(m1_engine *e, const m1w_lesson *m, const char *message)
{
	m1_buf payload = {0};
	m1_error err;

	assert_true(m1w_encode_lesson(&payload, m));
	assert_int_equal(m1_engine_learn(e, ++last_id, M1W_LESSON, &payload, NULL, &err), M1_E_INVALID_ARGUMENT);
	if (strstr(err.message, message) == NULL)
		fail_msg("\"%s\" instead of \"%s\"", err.message, message);
}

static void
test_refused_lessons(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	m1w_generate g = sampled("Tell me of the sea.", "");
	const int32_t many[] = {1000};
	const int32_t masked[] = {-1};
	const float nan = NAN;
	lesson l;
	m1w_lesson m;

	(void) state;
	begin(e, "t", "");
	fill_lesson(&l, "t", sample(e, &g), M1W_LOSS_CISPO);
	m = l.m;
	m.rate = NAN;
	refused(e, &m, "learning rate");
	m = l.m;
	m.temperature = 0;
	refused(e, &m, "temperature");
	m = l.m;
	m.lengths.len = 0;
	refused(e, &m, "lengths");
	m = l.m;
	m.lengths.data = many;
	refused(e, &m, "cannot have 1000 tokens");
	m = l.m;
	m.prompts.data = many;
	refused(e, &m, "with a prompt of 1000");
	m = l.m;
	m.advantages = (m1_slice){(const char *) &nan, sizeof nan};
	refused(e, &m, "advantages");
	m = l.m;
	m.old_logprobs.len = 4;
	refused(e, &m, "old_logprobs");
	m = l.m;
	m.experts.len -= 2;
	refused(e, &m, "experts");
	m = l.m;
	m.masked = (m1w_id_slice){masked, 1};
	m.masks = (m1_slice){l.ids.data, 1600 / 8};
	refused(e, &m, "mask of token -1");
	m.masked = (m1w_id_slice){(const int32_t[]){1}, 1};
	m.mask_of = (m1w_id_slice){(const int32_t[]){1, 0}, 2};
	refused(e, &m, "2 numbers of masks instead of 1");
	m.mask_of.len = 1;
	refused(e, &m, "no mask of number 1");
	m.mask_of.data = (const int32_t[]){-1};
	refused(e, &m, "no mask of number");
	m.masks.len -= 8;
	refused(e, &m, "words of masks");
	m = l.m;
	m.training = m1_slice_of("nothing");
	LEARN(e, ++last_id, M1W_LESSON, lesson, &m);
	refused_later(e, M1_E_NOT_FOUND, "there is no training \"nothing\"");
	m = l.m;
	m.ids = (m1w_id_slice){many, 1};
	m.lengths = (m1w_id_slice){(const int32_t[]){1}, 1};
	m.prompts = (m1w_id_slice){(const int32_t[]){0}, 1};
	m.old_logprobs = m.experts = (m1_slice){0};
	m.loss = M1W_LOSS_CE;
	m.advantages.len = 0;
	LEARN(e, ++last_id, M1W_LESSON, lesson, &m);
	finished(e, last_id); /* 1000 is a token */
	free_lesson(&l);
	m1_engine_close(e);
}

/* Of M1's vocabulary, of which a reply of some thousand tokens may have other masks at each. */
static void
test_most_masks(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	m1_model model = *m1_engine_model(e);
	const m1_ids tokens = {0};
	m1w_done done = {0};
	m1_status status = M1_OK;
	m1_kept_reply *k;
	m1_error err;
	int n = 0;

	(void) state;
	model.config.vocab_size = 200064;
	assert_ok(m1_kept_reply_create(&model, 0, 4000, &k, &err));
	while (n < 4000 && (status = m1_kept_reply_written(k, (size_t) n, n, &err)) == M1_OK)
		n++;
	assert_int_equal(status, M1_E_CONTEXT_OVERFLOW);
	assert_non_null(strstr(err.message, "too many masks"));
	assert_true(n > 1000);
	m1_kept_reply_put(k, &tokens, &done);
	assert_int_equal(done.masks.len, (size_t) n * 200064 / 8);
	assert_true(done.masks.len < M1W_MAX_PAYLOAD / 2);
	/* a mask that is there already takes no room */
	assert_ok(m1_kept_reply_written(k, (size_t) n, 7, &err));
	m1_kept_reply_free(k);
	m1_engine_close(e);
}

static void
test_refused_bytes(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	const m1w_bytes gap = {.name = m1_slice_of("b"), .total = 100, .offset = 10, .bytes = m1_slice_of("xyz")};
	const m1w_bytes huge = {.name = m1_slice_of("b"), .total = UINT64_MAX / 2, .bytes = m1_slice_of("xyz")};
	const m1w_serve nothing = {.name = m1_slice_of("a"), .from = m1_slice_of("nothing")};
	const m1w_serve bytes = {.name = m1_slice_of("a"), .from = m1_slice_of("b")};
	const m1w_training spoilt = {.name = m1_slice_of("u"), .from = m1_slice_of("b")};
	const m1w_forget forget = {.kind = M1W_KEPT_BYTES, .name = m1_slice_of("b")};
	m1_buf all;

	(void) state;
	begin(e, "t", "");
	all = fetch(e, "t", M1W_PART_ADAPTER, 1u << 20);
	LEARN(e, ++last_id, M1W_PUT, bytes, &gap);
	refused_later(e, M1_E_NOT_FOUND, "beginning of bytes");
	LEARN(e, ++last_id, M1W_PUT, bytes, &huge);
	refused_later(e, M1_E_NO_MEMORY, "more bytes");
	LEARN(e, ++last_id, M1W_SERVE, serve, &nothing);
	refused_later(e, M1_E_NOT_FOUND, "there is no training");
	all.len--;
	put(e, "b", &all, 1u << 20);
	LEARN(e, ++last_id, M1W_SERVE, serve, &bytes);
	refused_later(e, M1_E_CORRUPT, "bytes of numbers");
	all.len++;
	for (size_t at = 0; at < 200; at += 3)
	{
		const char was = all.data[at];

		all.data[at] = (char) (was ^ 0x55);
		put(e, "b", &all, 1u << 20);
		LEARN(e, ++last_id, M1W_SERVE, serve, &bytes);
		run_all(e);
		/* no number of updates or scale is wrong by itself; everything else is */
		assert_true(outcomes[last_id].failed || (at >= 24 && at < 32) || (at >= 40 && (at - 40) % 24 >= 12));
		if (outcomes[last_id].done)
		{
			const m1w_forget served = {.kind = M1W_KEPT_ADAPTER, .name = m1_slice_of("a")};

			LEARN(e, ++last_id, M1W_FORGET, forget, &served);
			finished(e, last_id);
		}
		all.data[at] = was;
	}
	put(e, "b", &all, 1u << 20);
	serve(e, "a", "b");
	put(e, "b", &all, 1u << 20);
	LEARN(e, ++last_id, M1W_SERVE, serve, &bytes);
	refused_later(e, M1_E_EXISTS, "an adapter \"a\" already");
	/* what was refused is not kept, nor with a training that begins from it */
	LEARN(e, ++last_id, M1W_FORGET, forget, &forget);
	refused_later(e, M1_E_NOT_FOUND, "name of bytes");
	all.data[0] ^= 0x55;
	put(e, "b", &all, 1u << 20);
	LEARN(e, ++last_id, M1W_TRAINING, training, &spoilt);
	run_all(e);
	assert_true(outcomes[last_id].failed);
	LEARN(e, ++last_id, M1W_FORGET, forget, &forget);
	refused_later(e, M1_E_NOT_FOUND, "name of bytes");
	m1_buf_free(&all);
	m1_engine_close(e);
	e = start((m1_engine_options){.model_path = "test/checkpoints/tiny-f32"});
	m1_engine_close(e);
}

/* Weights that are no numbers: who only looks hears it, an update is dropped, and nobody is given what is no number. */
static void
test_not_finite(void **state)
{
	m1_engine *e = start((m1_engine_options){0});
	float *norm = (float *) (uintptr_t) m1_engine_model(e)->weights.final_norm;
	const float sound = norm[0];
	m1w_generate g = sampled("Tell me of the sea.", "");
	lesson l;

	(void) state;
	begin(e, "t", "");
	fill_lesson(&l, "t", sample(e, &g), M1W_LOSS_CE);
	norm[0] = NAN;
	assert_int_equal(learn(e, &l, true)->learned.dropped, 1);
	l.m.update = 0;
	for (int want = 0; want < 2; want++)
	{
		l.m.want_logprobs = (uint8_t) want;
		LEARN(e, ++last_id, M1W_LESSON, lesson, &l.m);
		refused_later(e, M1_E_CORRUPT, "not finite numbers");
	}
	norm[0] = sound;
	assert_true(learn(e, &l, false)->learned.loss > 0);
	free_lesson(&l);
	m1_engine_close(e);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sampling_agrees),
		cmocka_unit_test(test_quantized_base_agrees),
		cmocka_unit_test(test_learns_and_serves),
		cmocka_unit_test(test_mean_by_weights),
		cmocka_unit_test(test_goes_on_to_the_same_bits),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_share),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_gives_up_what_is_not_used),
		cmocka_unit_test(test_gives_up_nothing_in_use),
		cmocka_unit_test(test_large_adapters_keep_no_step),
		cmocka_unit_test(test_refused_lessons),
		cmocka_unit_test(test_most_masks),
		cmocka_unit_test(test_refused_bytes),
		cmocka_unit_test(test_not_finite),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
