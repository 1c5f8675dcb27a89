/*
 * test_cuda_sample.c - tokens chosen on the device against model/sampler.c, which reads all logits; and by several
 * GPUs, each of which makes a part of the logits, against one.
 *
 * The same random number must give the same token, unless it falls within rounding of the boundary between two: those
 * are told apart by sums of their own, and counted. Every draw is made twice, among neighbours and alone, and must give
 * the same bits: most of them are recorded launches, which other draws, masks and logits have been recorded with.
 */
#include "cuda_testing.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda_group.h"
#include "model/sampler.h"

#define ROWS 12
#define WIDTH 32	   /* of what a head reads */
#define ROUNDS 4	   /* with one row of it more each */
#define LARGEST 200064 /* MiniMax-M1's vocabulary */

/*
 * How near to a boundary, as a share of all weights, another token is no error: whole numbers of 2^-45 for the weights,
 * and on a GPU another exponential function.
 */
#ifdef M1K_EMULATED
#define ROUNDING 1e-8
#else
#define ROUNDING 2e-6
#endif

static uint64_t seed = 20261125;
static int compared, at_boundaries;

static m1b_backend *
open_device(int gpus, int vocab, int batches)
{
	const m1b_geometry g = {.heads = 8,
							.kv_heads = 4,
							.head_dim = 16,
							.rotary_dim = 8,
							.rope_theta = 1e4f,
							.lightning_layers = 1,
							.softmax_layers = 1,
							.max_context = 64,
							.max_states = ROWS,
							.max_tokens = ROWS,
							.max_moe_pairs = 2 * ROWS,
							.expert_width = 32,
							.hidden = WIDTH,
							.experts = 2,
							.vocab = vocab,
							.weight_bytes = (size_t) vocab * WIDTH * sizeof(float),
							.weight_matrices = 1,
							.scratch_bytes = (size_t) batches * m1b_scratch_bytes((size_t) ROWS * (size_t) vocab) +
											 m1b_scratch_bytes((ROWS + ROUNDS) * WIDTH),
							.f32_weights = true};
	const m1b_cuda_options options = {.gpus = gpus};
	m1b_backend *b;
	m1_error err;

	assert_ok(m1b_cuda_open(&options, &b, &err));
	assert_ok(b->ops->configure(b, &g, &err));
	return b;
}

/* ---- logits ---- */

typedef enum shape
{
	PLAIN,
	PEAKED,
	FLAT,
	EQUAL,
	FEW_VALUES, /* many tokens share each */
	CUT,		/* half of them are minus infinity */
	BROKEN,		/* NaN here and there, first of all */
	HUGE_VALUES,
	ENDLESS, /* some are plus infinity */
	NOTHING, /* all are minus infinity */
	ALL_BROKEN,
	SHAPES,
} shape;

/* About normal, with a standard deviation of 1. */
static float
random_normal(void)
{
	float sum = 0;

	for (int i = 0; i < 6; i++)
		sum += test_random_float(&seed);
	return sum / sqrtf(2.0f);
}

static float
random_logit(shape s, int id)
{
	const float x = random_normal();

	switch (s)
	{
		case PEAKED:
			return id % 97 == 5 ? 30.0f + x : 3.0f * x;
		case FLAT:
			return 0.01f * x;
		case EQUAL:
			return -3.25f;
		case FEW_VALUES:
			return rintf(2.0f * x);
		case CUT:
			return test_random(&seed) % 2 ? -INFINITY : 3.0f * x;
		case BROKEN:
			return id == 0 || test_random(&seed) % 8 == 0 ? NAN : 3.0f * x;
		case HUGE_VALUES:
			return 1e38f * x;
		case ENDLESS:
			return test_random(&seed) % 16 == 0 ? INFINITY : x;
		case NOTHING:
			return -INFINITY;
		case ALL_BROKEN:
			return NAN;
		default:
			return 4.0f * x;
	}
}

/* ---- draws ---- */

static const float temperatures[] = {0, 0.01f, 1, 5};
static const float nuclei[] = {1e-6f, 0.3f, 0.95f, 1};
static const int tops[] = {0, 1, 40, -1}; /* -1 = the vocabulary */

#define COMBINATIONS 64

static m1_sampling
sampling_of(int combination, int vocab)
{
	const int top_k = tops[combination / 16 % 4];

	return (m1_sampling){.temperature = temperatures[combination % 4],
						 .top_p = nuclei[combination / 4 % 4],
						 .top_k = top_k < 0 ? vocab : top_k,
						 .seed = test_random(&seed)};
}

typedef enum mask_kind
{
	NO_MASK,
	HALF_MASK,
	ONE_TOKEN,
	EMPTY_MASK,
	MASKS,
} mask_kind;

static void
fill_mask(mask_kind kind, uint64_t *mask, int vocab)
{
	const int one = (int) (test_random(&seed) % (unsigned) vocab);

	memset(mask, 0, ((size_t) vocab + 63) / 64 * sizeof *mask);
	for (int i = 0; i < vocab; i++)
		if (kind == HALF_MASK ? test_random(&seed) % 2 : kind == ONE_TOKEN && i == one)
			mask[i >> 6] |= (uint64_t) 1 << (i & 63);
}

/* ---- boundaries ---- */

typedef struct place
{
	float weight;
	int id;
} place;

static int
by_place(const void *a, const void *b)
{
	const place *x = a;
	const place *y = b;

	return x->weight != y->weight ? (x->weight < y->weight) - (x->weight > y->weight) : x->id - y->id;
}

static bool
near(double a, double b, double total)
{
	return fabs(a - b) <= ROUNDING * total;
}

/* Whether a sum that the draw compares is so near to the other side that rounding may decide. */
static bool
is_at_boundary(const m1b_draw *draw, const float *logits, int vocab, int32_t want, int32_t got)
{
	place *all = malloc((size_t) vocab * sizeof *all);
	double total = 0, sum = 0, needed, kept;
	float max = -INFINITY;
	bool boundary = false;
	int n = 0, k;

	assert_non_null(all);
	for (int i = 0; i < vocab; i++)
		if (draw->allowed == NULL || (draw->allowed[i >> 6] >> (i & 63) & 1) != 0)
			all[n++] = (place){.weight = logits[i], .id = i};
	for (int i = 0; i < n; i++)
		max = all[i].weight > max ? all[i].weight : max;
	for (int i = 0; i < n; i++)
		all[i].weight = all[i].weight == max  ? 1.0f
						: all[i].weight < max ? expf((all[i].weight - max) / draw->temperature)
											  : 0.0f;
#ifndef M1K_EMULATED
	/* another exponential function may order two of nearly the same weight differently */
	boundary = fabsf(logits[want] - logits[got]) <= 1e-6f * draw->temperature;
#else
	(void) want;
	(void) got;
#endif
	if (draw->top_k > 0 || draw->top_p < 1.0f)
		qsort(all, (size_t) n, sizeof *all, by_place);
	k = draw->top_k > 0 && draw->top_k < n ? draw->top_k : n;
	for (int i = 0; i < k; i++)
		total += all[i].weight;
	needed = kept = (double) draw->top_p * total;
	for (int i = 0; i < k; i++)
	{
		sum += all[i].weight;
		boundary = boundary || (draw->top_p < 1.0f && near(sum, needed, total));
		if (sum >= needed)
		{
			kept = sum;
			break;
		}
	}
	if (draw->top_p >= 1.0f)
		kept = total;
	sum = 0;
	for (int i = 0; i < k; i++)
		boundary = boundary || near(sum += all[i].weight, draw->uniform * kept, total);
	free(all);
	return boundary;
}

/* ---- device and host ---- */

static void
check_pick(const m1b_draw *draw, const float *logits, int vocab, m1b_pick got, m1b_pick want, const char *what)
{
	compared++;
	if (got.id != want.id)
	{
		if (got.id < 0 || got.id >= vocab || draw->temperature == 0 ||
			!is_at_boundary(draw, logits, vocab, want.id, got.id))
			fail_msg("%s: token %d instead of %d at temperature %g, top_p %g, top_k %d, %.17g", what, got.id, want.id,
					 (double) draw->temperature, (double) draw->top_p, draw->top_k, draw->uniform);
		at_boundaries++;
		return;
	}
	if (isnan(got.probability) != isnan(want.probability) ||
		fabsf(got.probability - want.probability) > 1e-7f + 4e-6f * want.probability)
		fail_msg("%s: probability %g instead of %g", what, (double) got.probability, (double) want.probability);
}

/* Rows of logits, on the host and on the device. */
typedef struct batch
{
	shape shape;
	float *logits; /* [ROWS, vocab] */
	const float *device;
} batch;

/* Before the first batch is sampled: nothing is loaded later. */
static batch
load_batch(m1b_backend *b, int vocab, shape s)
{
	const size_t n = (size_t) ROWS * (size_t) vocab;
	batch loaded = {.shape = s, .logits = malloc(n * sizeof(float))};

	assert_non_null(loaded.logits);
	for (size_t i = 0; i < n; i++)
		loaded.logits[i] = random_logit(s, (int) (i % (size_t) vocab));
	assert_non_null(loaded.device = b->ops->scratch(b, n, loaded.logits));
	return loaded;
}

/* One of each kind. */
static uint64_t *
random_masks(int vocab)
{
	const size_t words = ((size_t) vocab + 63) / 64;
	uint64_t *masks = malloc(MASKS * words * sizeof *masks);

	assert_non_null(masks);
	for (int kind = HALF_MASK; kind < MASKS; kind++)
		fill_mask((mask_kind) kind, masks + (size_t) kind * words, vocab);
	return masks;
}

/* Number i: among the first there is each kind of mask. */
static m1b_draw
random_draw(const m1_sampler *sampler, const m1_sampling *sampling, const uint64_t *masks, int vocab, int i, int row)
{
	const mask_kind kind = i < MASKS ? (mask_kind) i : (mask_kind) (test_random(&seed) % MASKS);
	const uint64_t *mask = kind == NO_MASK ? NULL : masks + (size_t) kind * (((size_t) vocab + 63) / 64);

	return m1_sampler_draw(sampler, sampling, (uint64_t) i, mask, row);
}

/* Draws with the combinations from `first` on. */
static void
check_batch(m1b_backend *b, int vocab, const batch *rows, int first)
{
	uint64_t *masks = random_masks(vocab);
	m1b_draw draws[ROWS], alone;
	m1b_pick want[ROWS], got[2][ROWS], single;
	m1b_sample p = {.logits = rows->device, .draws = draws, .n = ROWS, .picks = got[0]};
	m1_sampler *sampler;
	m1_error err;
	char what[100];

	assert_ok(m1_sampler_create(vocab, NULL, &sampler, &err));
	for (int i = 0; i < ROWS; i++)
	{
		const int row = ROWS - 1 - i; /* draws need not be in the order of the rows */
		const m1_sampling sampling = sampling_of((first + i) % COMBINATIONS, vocab);

		draws[i] = random_draw(sampler, &sampling, masks, vocab, i, row);
		want[i] = m1_sampler_pick(sampler, &sampling, (uint64_t) i, draws[i].allowed, rows->logits + row * vocab);
	}
	assert_ok(b->ops->sample(b, &p, &err));
	p.picks = got[1];
	assert_ok(b->ops->sample(b, &p, &err));
	assert_memory_equal(got[0], got[1], sizeof got[0]);
	alone = draws[first % ROWS];
	p = (m1b_sample){.logits = p.logits, .draws = &alone, .n = 1, .picks = &single};
	assert_ok(b->ops->sample(b, &p, &err));
	assert_memory_equal(&single, &got[0][first % ROWS], sizeof single);
	for (int i = 0; i < ROWS; i++)
	{
		snprintf(what, sizeof what, "%d tokens of shape %d, draw %d from combination %d", vocab, rows->shape, i, first);
		check_pick(&draws[i], rows->logits + draws[i].row * vocab, vocab, got[0][i], want[i], what);
	}
	m1_sampler_free(sampler);
	free(masks);
}

static void
check_vocabulary(int gpus, int vocab, int batches)
{
	m1b_backend *b = open_device(gpus, vocab, batches);
	batch *all = calloc((size_t) batches, sizeof *all);

	assert_non_null(all);
	for (int i = 0; i < batches; i++)
		all[i] = load_batch(b, vocab, (shape) (i % SHAPES));
	for (int i = 0; i < batches; i++)
	{
		check_batch(b, vocab, &all[i], i * ROWS + i / SHAPES);
		free(all[i].logits);
	}
	free(all);
	b->ops->close(b);
}

static void
test_tokens_are_the_samplers(void **state)
{
	static const int few[] = {1, 2, 37, 63, 64, 65, 1023, 1600, 2048, 2049, 8193};

	(void) state;
	compared = at_boundaries = 0;
	for (size_t i = 0; i < sizeof few / sizeof *few; i++)
		check_vocabulary(1, few[i], REPEATED(3 * SHAPES));
	check_vocabulary(1, 50001, SHAPES);
	/* one in a thousand falls on a boundary at most */
	if (compared < REPEATED(4000) || at_boundaries * 1000 > compared)
		fail_msg("%d of %d tokens were at a boundary", at_boundaries, compared);
}

static void
test_the_whole_vocabulary(void **state)
{
	(void) state;
	compared = at_boundaries = 0;
	check_vocabulary(1, LARGEST, REPEATED(BROKEN));
	if (compared != REPEATED(BROKEN) * ROWS || at_boundaries > 1)
		fail_msg("%d of %d tokens were at a boundary", at_boundaries, compared);
}

/* The ends of the interval that random numbers come from, and a boundary that no rounding blurs. */
static void
check_ends(const float *logits)
{
	static const double numbers[] = {0, 0.2499999, 0.25, 0.2500001, 0.9999999, 1 - 0x1p-53};
	static const int want[] = {0, 0, 1, 1, 3, 3};
	m1b_backend *b = open_device(1, 8, 1);
	m1b_draw draws[6];
	m1b_pick picks[6];
	m1b_sample p = {.draws = draws, .n = 6, .picks = picks};
	m1_error err;

	p.logits = b->ops->scratch(b, 8, logits);
	for (int k = 4; k <= 8; k += 4) /* top_k alone, and a nucleus of the same four */
	{
		for (int i = 0; i < 6; i++)
			draws[i] = (m1b_draw){
				.temperature = 1, .top_p = k == 4 ? 1.0f : 0.8f, .top_k = k, .uniform = numbers[i], .allowed = NULL};
		assert_ok(b->ops->sample(b, &p, &err));
		for (int i = 0; i < 6; i++)
			assert_int_equal(picks[i].id, want[i]);
	}
	assert_true(fabsf(picks[0].probability - 1.0f / (4.0f + expf(-1.0f))) < 1e-6f);
	b->ops->close(b);
}

static void
test_random_numbers_at_the_ends(void **state)
{
	static const float equal[8] = {0, 0, 0, 0, -FLT_MAX, -300, -200, -1};

	(void) state;
	check_ends(equal);
#ifdef M1K_EMULATED
	/* no weight is above the best one's, whatever a device's exponential function makes of so little */
	static const float almost[8] = {0, -1e-9f, -1e-9f, -1e-9f, -FLT_MAX, -300, -200, -1};

	emulated_round_exponentials_up(true);
	check_ends(almost);
	emulated_round_exponentials_up(false);
#endif
}

static void
test_not_on_this_device(void **state)
{
	static const int vocabularies[] = {0, (1 << 18) + 2, (1 << 18) + 2};
	static const int gpus[] = {1, 1, 2};

	(void) state;
	for (int i = 0; i < 3 && gpus[i] <= devices(); i++)
	{
		m1b_backend *b = open_device(gpus[i], vocabularies[i], 1);
		m1b_sample p = {.n = 0};
		m1_error err;

		assert_int_equal(b->ops->sample(b, &p, &err), M1_E_UNSUPPORTED);
		b->ops->close(b);
	}
}

/* ---- several GPUs ---- */

/* A head that they divide. */
typedef struct head
{
	m1b_backend *b;
	m1b_matrix weight;
	const float *x; /* [ROWS + ROUNDS, WIDTH] */
	float *logits;	/* [ROWS, vocab] */
	int vocab;
} head;

static float *
random_floats(size_t n)
{
	float *x = malloc(n * sizeof *x);

	assert_non_null(x);
	for (size_t i = 0; i < n; i++)
		x[i] = test_random_float(&seed);
	return x;
}

static head
open_head(int gpus, int vocab, const float *weights, const float *x)
{
	const m1b_stored_matrix p = {
		.host = weights, .type = M1B_F32, .use = M1B_USE_HEAD, .split = M1B_SPLIT_ROWS, .rows = vocab, .cols = WIDTH};
	head h = {.b = open_device(gpus, vocab, 1), .vocab = vocab};
	float read[WIDTH];
	bool borrowed;
	m1_error err;

	assert_ok(h.b->ops->matrix(h.b, &p, &h.weight, &borrowed, &err));
	assert_non_null(h.x = h.b->ops->scratch(h.b, (ROWS + ROUNDS) * WIDTH, x));
	assert_non_null(h.logits = h.b->ops->scratch(h.b, (size_t) ROWS * (size_t) vocab, NULL));
	/* then everything is there */
	assert_ok(h.b->ops->read(h.b, h.x, WIDTH, read, &err));
	return h;
}

/* The last of n rows of logits, and what is chosen from all of them. */
static void
choose(const head *h, int round, const m1b_draw *draws, int n, m1b_pick *picks, float *last)
{
	const size_t vocab = (size_t) h->vocab;
	const m1b_linear linear = {
		.x = h->x + round * WIDTH, .n = n, .products = {{&h->weight, M1B_NONE, h->logits}}, .n_products = 1};
	const m1b_sample p = {.logits = h->logits, .draws = draws, .n = n, .picks = picks};
	m1_error err;

	h->b->ops->linear(h->b, &linear);
	assert_ok(h->b->ops->sample(h->b, &p, &err));
	assert_ok(h->b->ops->read(h->b, h->logits + (size_t) (n - 1) * vocab, vocab, last, &err));
}

/* The same logits and the same tokens, whether choosing is recorded or not. */
static void
check_gpus(int gpus, int vocab)
{
	static const int rows[] = {1, 5, M1K_FEW_ROWS}; /* with more, logits are equal only but for rounding */
	float *x = random_floats((ROWS + ROUNDS) * WIDTH);
	float *weights = random_floats((size_t) vocab * WIDTH);
	float *logits[2] = {malloc((size_t) vocab * sizeof(float)), malloc((size_t) vocab * sizeof(float))};
	uint64_t *masks = random_masks(vocab);
	head one = open_head(1, vocab, weights, x);
	head several = open_head(gpus, vocab, weights, x);
	m1_sampler *sampler;
	m1_error err;

	assert_ok(m1_sampler_create(vocab, NULL, &sampler, &err));
	for (int i = 0; i < 3; i++)
		for (int round = 0; round < ROUNDS; round++)
		{
			const int n = rows[i];
			m1b_pick picks[2][ROWS];
			m1b_draw draws[ROWS];

			for (int j = 0; j < n; j++)
			{
				const m1_sampling sampling = sampling_of((int) (test_random(&seed) % COMBINATIONS), vocab);

				draws[j] = random_draw(sampler, &sampling, masks, vocab, j, (j + round) % n);
			}
			choose(&one, round, draws, n, picks[0], logits[0]);
			choose(&several, round, draws, n, picks[1], logits[1]);
			assert_memory_equal(logits[0], logits[1], (size_t) vocab * sizeof(float));
			assert_memory_equal(picks[0], picks[1], (size_t) n * sizeof *picks[0]);
		}
	m1_sampler_free(sampler);
	one.b->ops->close(one.b);
	several.b->ops->close(several.b);
	free(masks);
	free(logits[0]);
	free(logits[1]);
	free(weights);
	free(x);
}

static void
test_several(void **state)
{
	(void) state;
	if (devices() < 2)
		skip();
	check_vocabulary(2, 1600, SHAPES);
	check_gpus(2, 74);
	if (devices() >= 4)
		check_gpus(4, 4 * 2051);
}

/* ---- what is left ---- */

static void
assert_zeros(const void *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		assert_int_equal(((const unsigned char *) at)[i], 0);
}

static void
assert_zeros_there(m1b_cuda *c, const void *at, size_t bytes)
{
	void *copy = malloc(bytes);
	m1_error err;

	assert_non_null(copy);
	m1b_cuda_download(c, copy, at, bytes, "looking");
	assert_int_equal(cudaStreamSynchronize(c->stream), cudaSuccess);
	assert_ok(m1b_cuda_status(c, &err));
	assert_zeros(copy, bytes);
	free(copy);
}

/* What one reply's sampling used is not there for the next. */
static void
check_nothing_is_left(int gpus)
{
	m1b_backend *b = open_device(gpus, 500, SHAPES);
	m1b_cuda *c = gpus == 1 ? m1b_cuda_of(b) : m1b_cuda_group_use(m1b_cuda_group_of(b), 0);
	const size_t words = (MASKS - 1) * 8; /* all kinds of masks are used */
	batch all[SHAPES];

	for (int i = 0; i < SHAPES; i++)
		all[i] = load_batch(b, 500, (shape) i);
	for (int i = 0; i < SHAPES; i++)
	{
		check_batch(b, 500, &all[i], i);
		free(all[i].logits);
		assert_zeros(c->sampling.host_draws, ROWS * sizeof *c->sampling.host_draws);
		assert_zeros(c->sampling.host_picks, ROWS * sizeof *c->sampling.host_picks);
		assert_zeros(c->sampling.host_masks, words * sizeof *c->sampling.host_masks);
		assert_zeros_there(c, c->sampling.draws, ROWS * sizeof *c->sampling.draws);
		assert_zeros_there(c, c->sampling.masks, words * sizeof *c->sampling.masks);
		assert_zeros_there(c, c->sampling.found, ROWS * sizeof *c->sampling.found);
		assert_zeros_there(c, c->sampling.bins, (size_t) ROWS * M1K_SAMPLE_BINS * sizeof *c->sampling.bins);
	}
	b->ops->close(b);
}

static void
test_nothing_is_left(void **state)
{
	(void) state;
	check_nothing_is_left(1);
	if (devices() >= 2)
		check_nothing_is_left(2);
}

#ifdef M1K_EMULATED

static size_t
calls_of(m1b_backend *b, const m1b_sample *p)
{
	const size_t before = emulated_calls();
	m1_error err;

	assert_ok(b->ops->sample(b, p, &err));
	return emulated_calls() - before;
}

/* From the second time on, what so many draws need is one call of the host, and two more where there are masks. */
static void
test_few_calls(void **state)
{
	static const struct
	{
		m1b_draw draw;
		size_t kernels;
	} kinds[] = {
		{{.temperature = 0, .top_p = 0.5f, .top_k = 9}, 3},
		{{.temperature = 1, .top_p = 1}, 13},
		{{.temperature = 1, .top_p = 0.9f}, 23},
		{{.temperature = 1, .top_p = 1, .top_k = 9}, 23},
		{{.temperature = 1, .top_p = 0.9f, .top_k = 9}, 33},
	};
	static const uint64_t mask[2] = {1 << 7, 1};
	m1b_backend *b = open_device(1, 100, 1);
	m1b_draw draws[3];
	m1b_pick picks[3];
	m1b_sample p = {.draws = draws, .picks = picks};

	(void) state;
	assert_non_null(p.logits = b->ops->scratch(b, 100, NULL));
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		for (p.n = 1; p.n <= 3; p.n++)
		{
			for (int j = 0; j < p.n; j++)
				draws[j] = kinds[i].draw;
			assert_int_equal(calls_of(b, &p), 1 + kinds[i].kernels);
			for (int again = 0; again < 3; again++)
				assert_int_equal(calls_of(b, &p), 1);
			draws[p.n - 1].allowed = mask;
			draws[p.n - 1].uniform = 0.75;
			assert_int_equal(calls_of(b, &p), 3);
			assert_int_equal(picks[p.n - 1].id, draws[0].temperature > 0 ? 64 : 7);
		}
	b->ops->close(b);
}

/* What the device refuses to record is launched as before, and not tried again. */
static void
test_recording_is_refused(void **state)
{
	m1b_backend *b = open_device(1, 100, 1);
	m1b_draw draw = {.top_p = 1};
	m1b_pick pick;
	m1b_sample p = {.draws = &draw, .n = 1, .picks = &pick};

	(void) state;
	assert_non_null(p.logits = b->ops->scratch(b, 100, NULL));
	emulated_spoil_recordings(9);
	for (int i = 0; i < 4; i++)
	{
		pick.id = -1;
		assert_int_equal(calls_of(b, &p), 4);
		assert_int_equal(pick.id, 0);
	}
	assert_int_equal(emulated_spoil_recordings(0), 8);
	b->ops->close(b);
}

/* `break_device` makes the second one fail. */
static void
check_failure(int gpus, void (*break_device)(void), const char *says)
{
	m1b_backend *b = open_device(gpus, 100, 1);
	m1b_draw draw = {.top_p = 1};
	m1b_pick pick;
	m1b_sample p = {.draws = &draw, .n = 1, .picks = &pick};
	m1_error err;

	p.logits = b->ops->scratch(b, 100, NULL);
	assert_ok(b->ops->sample(b, &p, &err));
	break_device();
	assert_int_equal(b->ops->sample(b, &p, &err), M1_E_DEVICE);
	assert_non_null(strstr(err.detail, says));
	assert_int_equal(b->ops->sample(b, &p, &err), M1_E_DEVICE);
	b->ops->close(b);
	emulated_set_devices(4);
}

static void
fail_launch(void)
{
	emulated_fail_next_launch(cudaErrorIllegalAddress);
}

static void
lose_the_second(void)
{
	emulated_lose_device(1);
}

static void
test_device_failure(void **state)
{
	(void) state;
	check_failure(1, fail_launch, "cudaErrorIllegalAddress");
	check_failure(2, fail_launch, "GPU 0: cudaErrorIllegalAddress");
	check_failure(2, lose_the_second, "GPU 1: cudaErrorIllegalAddress");
}
#endif

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tokens_are_the_samplers),
		cmocka_unit_test(test_the_whole_vocabulary),
		cmocka_unit_test(test_random_numbers_at_the_ends),
		cmocka_unit_test(test_not_on_this_device),
		cmocka_unit_test(test_several),
		cmocka_unit_test(test_nothing_is_left),
#ifdef M1K_EMULATED
		cmocka_unit_test(test_few_calls),
		cmocka_unit_test(test_recording_is_refused),
		cmocka_unit_test(test_device_failure),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
