/*
 * model.h - an opened checkpoint: config, weights on a backend, tokenizer, and the forward pass. Used from one thread,
 * but for the tokenizer, which any thread may use.
 */
#ifndef M1_MODEL_MODEL_H
#define M1_MODEL_MODEL_H

#include "backend/backend.h"
#include "model/adapter_files.h"
#include "model/adapter_set.h"
#include "model/source.h"
#include "model/weights.h"

/* An adapter by the name that requests call it by. */
typedef struct m1_adapter_option
{
	const char *name;
	const char *path; /* of its folder */
} m1_adapter_option;

typedef struct m1_model_options
{
	const char *path;	/* checkpoint folder, or GGUF file */
	const char *device; /* "auto", "cpu" or "cuda" */
	int gpus;			/* that share the model, where the device is cuda; 0 is 1 */
	const char *isa;	/* NULL, or the CPU instruction set to use (for tests) */
	m1_weight_format weight_format;
	int threads;					   /* 0 = all cores */
	int max_context;				   /* tokens of one sequence; 0 = the model's own */
	int max_sequences;				   /* states at once */
	int max_batch_tokens;			   /* tokens of one step */
	size_t kv_bytes;				   /* of KV pages; 0 = a safe share of the memory */
	size_t snapshot_bytes;			   /* what the caller will let snapshots take */
	const m1_adapter_option *adapters; /* [n_adapters], of different names */
	int n_adapters;
	void (*log)(void *context, const char *line); /* told what the device's memory is used for; may be NULL */
	void *log_context;
} m1_model_options;

typedef struct m1_model
{
	m1_source *source;
	const char *name; /* the source's */
	m1_config config;
	m1_checkpoint *checkpoint;
	m1_weights weights;
	uint64_t weight_bytes;	 /* in the types that they are used in */
	m1_tokenizer *tokenizer; /* NULL when the checkpoint has none */
	m1b_backend *backend;
	m1_adapter_set *adapters;
	int max_context;
	int page_tokens;		/* of the backend's KV pages */
	bool kv_limits_context; /* max_context is what the KV pages hold, less than was asked for */
	int max_sequences;
	int max_batch_tokens;
	struct m1_activations *activations; /* forward.c */
} m1_model;

/*
 * Prompt tokens of one step that suit a device ("auto", "cpu" or "cuda"): enough that weights are read for many tokens
 * at a time, and few enough that replies do not wait long beside a prefill.
 */
int m1_model_prefill_chunk(const char *device);

m1_status m1_model_open(const m1_model_options *options, m1_model **out, m1_error *err);
/*
 * Only its config and its tokenizer: for requests that are computed elsewhere. Weights need not be there. max_context:
 * as in the options.
 */
m1_status m1_model_open_text(const char *path, int max_context, m1_model **out, m1_error *err);
void m1_model_close(m1_model *model);

/* What adapters are made for. */
m1_adapter_base m1_model_adapter_base(const m1_model *model);
/* The adapter of a number; NULL for 0, which is none. */
const m1_adapter *m1_model_adapter(const m1_model *model, int number);
/*
 * Requests can name one more adapter, which is the model's from now on unless that fails. Between two steps of the
 * thread that runs the model. M1_E_UNSUPPORTED where the device knows none.
 */
m1_status m1_model_add_adapter(m1_model *model, m1_slice name, m1_adapter *adapter, m1_error *err);

/* The failure of a request for which the model computes no numbers: of this one only. */
m1_status m1_model_not_finite(m1_error *err);

/* "cpu (AVX-512, 2 threads)" */
const char *m1_model_device(const m1_model *model);

#endif
