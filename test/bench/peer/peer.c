/*
 * peer.c - measures llama.cpp through its library, as `minimax_m1_engine bench` measures us: the same model file,
 * the same sizes, the same JSON keys.
 *
 *   peer MODEL LIBDIR THREADS UBATCH PREFILL_LIST BATCH_LIST TOKENS
 *
 * Prefill: the median of three prompts (one from 16384 tokens on) in an empty context. Decode: all sequences together,
 * one token each a step, from an empty context, the median of three runs of TOKENS steps after one to warm up.
 */
#include <llama.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REPEATS 3
#define LONG_PREFILL 16384
#define MAX_LIST 16

typedef struct list
{
	int n;
	int at[MAX_LIST];
} list;

static double
now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static void
die(const char *what)
{
	fprintf(stderr, "peer: %s failed\n", what);
	exit(1);
}

static list
parse(const char *text)
{
	list l = {0};

	for (char *at = strdup(text), *item; (item = strtok(at, ",")) != NULL && l.n < MAX_LIST; at = NULL)
		l.at[l.n++] = atoi(item);
	return l;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a;
	double y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
median(double *values, int n)
{
	qsort(values, (size_t) n, sizeof *values, by_value);
	return values[n / 2];
}

static struct llama_context *
open_context(struct llama_model *model, int threads, int ubatch, int sequences, int tokens_each)
{
	struct llama_context_params p = llama_context_default_params();
	struct llama_context *context;

	p.n_threads = p.n_threads_batch = threads;
	p.n_ctx = (uint32_t) ((tokens_each + 255) / 256 * 256 * sequences);
	p.n_batch = (uint32_t) (tokens_each > sequences ? tokens_each : sequences);
	p.n_ubatch = (uint32_t) ubatch;
	p.n_seq_max = (uint32_t) sequences;
	p.no_perf = true;
	if ((context = llama_init_from_model(model, p)) == NULL)
		die("llama_init_from_model");
	return context;
}

static double
prefill(struct llama_model *model, int threads, int ubatch, int n)
{
	const int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
	const int repeats = n >= LONG_PREFILL ? 1 : REPEATS;
	struct llama_context *context = open_context(model, threads, ubatch, 1, n);
	llama_token *tokens = malloc((size_t) n * sizeof *tokens);
	double rates[REPEATS];

	for (int i = -1; i < repeats; i++)
	{
		const int length = i < 0 && n > 512 ? 512 : n; /* the first warms up */
		double start;

		for (int t = 0; t < n; t++)
			tokens[t] = (llama_token) ((t * 7919LL + 13) % vocab);
		llama_memory_clear(llama_get_memory(context), true);
		start = now_s();
		if (llama_decode(context, llama_batch_get_one(tokens, length)) != 0)
			die("llama_decode");
		llama_synchronize(context);
		if (i >= 0)
			rates[i] = n / (now_s() - start);
	}
	free(tokens);
	llama_free(context);
	return median(rates, repeats);
}

static double
decode(struct llama_model *model, int threads, int ubatch, int sequences, int steps)
{
	const int vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
	struct llama_context *context = open_context(model, threads, ubatch, sequences, (REPEATS + 1) * steps);
	struct llama_batch batch = llama_batch_init(sequences, 0, 1);
	double rates[REPEATS];

	batch.n_tokens = sequences;
	for (int i = -1; i < REPEATS; i++)
	{
		double start = now_s();

		for (int step = 0; step < steps; step++)
		{
			const int position = (i + 1) * steps + step;

			for (int s = 0; s < sequences; s++)
			{
				batch.token[s] = (llama_token) ((position * 7919LL + s * 104729LL) % vocab);
				batch.pos[s] = position;
				batch.n_seq_id[s] = 1;
				batch.seq_id[s][0] = s;
				batch.logits[s] = 1;
			}
			if (llama_decode(context, batch) != 0)
				die("llama_decode");
			llama_synchronize(context);
		}
		if (i >= 0)
			rates[i] = (double) sequences * steps / (now_s() - start);
	}
	llama_batch_free(batch);
	llama_free(context);
	return median(rates, REPEATS);
}

static double
resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long pages = 0;

	if (f == NULL || fscanf(f, "%*d %ld", &pages) != 1)
		pages = 0;
	if (f != NULL)
		fclose(f);
	return (double) pages * (double) sysconf(_SC_PAGESIZE);
}

static void
quiet(enum ggml_log_level level, const char *text, void *context)
{
	(void) context;
	if (level == GGML_LOG_LEVEL_ERROR)
		fputs(text, stderr);
}

int
main(int argc, char **argv)
{
	struct llama_model *model;
	struct llama_model_params params;
	list prefills, batches;
	double start;
	int threads, ubatch;

	if (argc != 8)
	{
		fputs("usage: see the top of peer.c\n", stderr);
		return 2;
	}
	llama_log_set(quiet, NULL);
	ggml_backend_load_all_from_path(argv[2]);
	llama_backend_init();
	threads = atoi(argv[3]);
	ubatch = atoi(argv[4]);
	prefills = parse(argv[5]);
	batches = parse(argv[6]);
	start = now_s();
	params = llama_model_default_params();
	params.n_gpu_layers = 0;
	if ((model = llama_model_load_from_file(argv[1], params)) == NULL)
		die("llama_model_load_from_file");
	printf("{\"load_ms\": %.1f, \"ubatch\": %d, \"decode_tokens_per_s\": {", 1e3 * (now_s() - start), ubatch);
	for (int i = 0; i < batches.n; i++)
		printf("%s\"%d\": %.2f", i == 0 ? "" : ", ", batches.at[i],
			   decode(model, threads, ubatch, batches.at[i], atoi(argv[7])));
	printf("}, \"prefill_tokens_per_s\": {");
	for (int i = 0; i < prefills.n; i++)
		printf("%s\"%d\": %.2f", i == 0 ? "" : ", ", prefills.at[i], prefill(model, threads, ubatch, prefills.at[i]));
	printf("}, \"resident_bytes\": %.0f}\n", resident_bytes());
	llama_model_free(model);
	return 0;
}
