/*
 * message.h - the payloads of frames, as structs and as bytes.
 *
 * Encoding and decoding of one message is one function over its fields (see message.c), so the two cannot drift apart.
 * Decoded slices point into the payload that was decoded and live as long as it does. A payload that is too short, too
 * long or holds an out-of-range value is M1_E_CORRUPT.
 */
#ifndef M1_WIRE_MESSAGE_H
#define M1_WIRE_MESSAGE_H

#include "wire/frame.h"

#define M1W_MAX_STOPS 16		/* stop strings of one request */
#define M1W_MAX_TOP_LOGPROBS 20 /* alternatives of one token */

/* What an answer must look like. Reasoning stays free. */
typedef enum m1w_constraint
{
	M1W_CONSTRAINT_NONE = 0,
	M1W_CONSTRAINT_CHOICES,		/* one of several strings; its text is a JSON array of them */
	M1W_CONSTRAINT_JSON_SCHEMA, /* a JSON value; its text is the schema */
	M1W_CONSTRAINT_REGEX,		/* all of the answer matches; its text is the regular expression */
	M1W_CONSTRAINT_COUNT
} m1w_constraint;

typedef enum m1w_channel
{
	M1W_CONTENT = 0,	/* the answer */
	M1W_REASONING = 1,	/* between <think> and </think> */
	M1W_TOOL_CALLS = 2, /* between <tool_calls> and </tool_calls>: lines, as the model writes them */
	M1W_CHANNEL_COUNT
} m1w_channel;

typedef enum m1w_finish
{
	M1W_FINISH_STOP = 0,		/* end of turn, or a stop string */
	M1W_FINISH_LENGTH,			/* max_tokens or the context ran out */
	M1W_FINISH_THINKING_BUDGET, /* the reasoning was cut at its budget; the answer is complete */
	M1W_FINISH_LOOP,			/* the loop guard saw the model repeat itself */
	M1W_FINISH_COUNT
} m1w_finish;

const char *m1w_finish_name(m1w_finish reason);	   /* "stop", "length", "thinking_budget", "loop" */
const char *m1w_channel_name(m1w_channel channel); /* "content", "reasoning", "tool_calls" */

typedef enum m1w_phase
{
	M1W_PHASE_QUEUED = 0, /* in the engine, no state yet */
	M1W_PHASE_PREFILL,
	M1W_PHASE_DECODE,
	M1W_PHASE_COUNT
} m1w_phase;

/* A borrowed array of token ids (4-byte aligned copies are made by the reader where needed). */
typedef struct m1w_id_slice
{
	const int32_t *data; /* may be unaligned: read with memcpy or m1w_id_at */
	size_t len;			 /* ids, not bytes */
} m1w_id_slice;

int32_t m1w_id_at(m1w_id_slice ids, size_t i);

typedef struct m1w_generate
{
	m1_slice prompt;		 /* user text; empty when messages or ids are given */
	uint32_t template_len;	 /* leading bytes of prompt that other requests have, too: worth a snapshot; 0 = none */
	uint64_t cache_owner;	 /* requests with equal numbers use each other's snapshots, and no others */
	m1_slice system;		 /* system prompt; empty for none */
	m1_slice messages;		 /* JSON array of {role, content, …}, or empty */
	m1_slice tools;			 /* JSON array of tool definitions, or empty */
	m1_slice tool_choice;	 /* auto, none, required or a tool's name; empty for auto */
	m1w_id_slice ids;		 /* raw token ids instead of a chat; the reply is then ids too (m1w_done.ids) */
	int32_t max_tokens;		 /* >= 1; clamped to what the context leaves */
	int32_t thinking_budget; /* tokens of reasoning; 0 = none, -1 = no limit */
	float temperature;		 /* 0 = greedy */
	float top_p;			 /* (0, 1] */
	int32_t top_k;			 /* 0 = off */
	uint64_t seed;
	uint8_t stream; /* 1: send DELTA frames, and leave the texts out of DONE */
	uint32_t n_stops;
	m1_slice stops[M1W_MAX_STOPS];
	uint8_t constraint;		  /* m1w_constraint; not with stops or ids; beside tools, of a reply that calls none */
	m1_slice constraint_text; /* empty only for none */
	m1_slice adapter;		  /* the name of one that the engine has loaded; empty for none */
	uint8_t score_choices;	  /* 1, with choices only: choose by, and return, the probability of every choice */
	uint8_t logprobs;		  /* 1: return the log probabilities of the written tokens */
	uint8_t top_logprobs;	  /* with logprobs: of so many of the likeliest tokens in each place, too */
	uint8_t keep;			  /* 1: return what a lesson needs of the reply, see m1w_done; not with score_choices */
	uint8_t background;		  /* 1: of a training, which takes no more than its share of the time beside others */
} m1w_generate;

/* What is wanted of a text's tokens. One thing of each, so that the longest text's answer fits into a message. */
typedef enum m1w_wanted
{
	M1W_WANT_IDS = 0,
	M1W_WANT_ENDS,
	M1W_WANT_COUNT, /* of texts of any length: its answer is a number */
	M1W_WANTED_COUNT
} m1w_wanted;

typedef struct m1w_words
{
	m1_slice text;	/* UTF-8 */
	uint8_t tags;	/* 1: the model is to write it, and its tags, such as <think>, are tokens; 0: users' text */
	uint8_t wanted; /* m1w_wanted */
} m1w_words;

typedef struct m1w_counted
{
	int64_t tokens;
} m1w_counted;

typedef struct m1w_text
{
	m1_slice text; /* UTF-8 */
} m1w_text;

typedef struct m1w_tokens
{
	m1w_id_slice ids;  /* TOKENS: empty if the ends are wanted */
	m1w_id_slice ends; /* TOKENS, if they are wanted: byte offset in the text where each token ends; else empty */
} m1w_tokens;

typedef struct m1w_vector
{
	m1_slice values; /* fp32, native order, maybe unaligned; values.len is in bytes */
} m1w_vector;

typedef struct m1w_ready
{
	m1_slice name;		   /* the last path component of the checkpoint */
	m1_slice architecture; /* "MiniMaxM1ForCausalLM" */
	m1_slice device;	   /* "cpu (AVX-512, 2 threads)" */
	uint64_t parameters;
	uint64_t bytes; /* of weights, in the types they are used in */
	int32_t layers;
	int32_t experts;
	int32_t context; /* tokens one request may use, prompt and reply together */
	int32_t vocab;
	uint8_t has_tokenizer;
} m1w_ready;

typedef struct m1w_cache
{
	uint32_t snapshots; /* in the prefix cache now */
	uint64_t bytes;		/* that they take */
} m1w_cache;

typedef struct m1w_progress
{
	uint8_t phase; /* m1w_phase */
	int32_t prompt_tokens;
	int32_t prefilled; /* of prompt_tokens; starts at what was in the prefix cache */
	int32_t generated;
} m1w_progress;

typedef struct m1w_delta
{
	uint8_t channel; /* m1w_channel */
	m1_slice text;	 /* whole UTF-8 characters, never empty */
} m1w_delta;

typedef struct m1w_done
{
	m1_slice content;
	m1_slice reasoning;	 /* empty when the model did not reason */
	m1_slice tool_calls; /* JSON array of {name, arguments}, or empty */
	m1w_id_slice ids;	 /* the generated ids, for a request made of ids */
	uint8_t finish;		 /* m1w_finish */
	int32_t prompt_tokens;
	int32_t cached_tokens;	   /* of prompt_tokens, taken from the prefix cache */
	int32_t reasoning_tokens;  /* of completion_tokens */
	int32_t completion_tokens; /* with the closing <end_of_sentence> */
	uint64_t seed;
	double queue_ms; /* in the engine only; the worker's queue comes on top */
	double prefill_ms;
	double decode_ms;
	m1_slice choice_logprobs; /* for score_choices: fp64, native order, maybe unaligned (m1w_double_at); see below */
	m1_slice logprobs;		  /* JSON array of the written tokens, for logprobs; else empty */
	/* for keep, with n = prompt_ids.len + ids.len tokens in all; ids are then there for a chat, too */
	m1w_id_slice prompt_ids;
	/*
	 * fp32 [ids.len] at the temperature (1 if that is 0), over the vocabulary or, of a masked one, over what its mask
	 * leaves; 0 of ids that were not chosen, as a closing tag that the budget has written: those are not for learning
	 */
	m1_slice sampled_logprobs;
	m1_slice experts; /* uint16 [n, layers, experts of a token] that each took; M1W_NO_EXPERT where that is not known */
	m1w_id_slice masked; /* of a constrained answer: places in ids of those that were sampled under a mask, ascending */
	m1_slice masks; /* uint64 [n, words], no two equal: a bit for each id that could be; words hold the vocabulary */
	m1w_id_slice mask_of; /* [masked.len] number of its mask, from 0 */
} m1w_done;

/*
 * logprobs has an object for each token that the model wrote but the end of turn, those of its tags included:
 * {"token": text, "bytes": [0..255, ...], "logprob": x, "channel": "reasoning" | "content" | "tool_calls",
 * "top_logprobs": [{"token", "bytes", "logprob"}, ...]}, the likeliest first.
 *
 * choice_logprobs has one value per choice, in the order of the request: the natural logarithm of the probability that
 * the model answers with this choice and ends there, given that it answers with one of them. Their exponentials add up
 * to 1. A choice is read as the tokenizer encodes it: other ways to spell the same text in tokens are not counted.
 */
double m1w_double_at(m1_slice values, size_t i);

#define M1W_NO_EXPERT 0xffff

/* ---- learning: see README.md for how these follow each other ---- */

#define M1W_MAX_NAME 200 /* bytes of the name of a training, an adapter, or bytes that were put */

/* What there is of an adapter or a training, as bytes, or a piece of them. */
typedef enum m1w_part
{
	M1W_PART_ADAPTER = 0, /* what is served */
	M1W_PART_TRAINING,	  /* and what the optimizer keeps: to go on to the same bits */
	M1W_PART_PEFT,		  /* the files of what is served, as src/model/adapter_peft.h has them */
	M1W_PART_COUNT
} m1w_part;

typedef struct m1w_bytes
{
	m1_slice name;	 /* PUT: what they are kept under; FETCH and BYTES: the training */
	uint8_t part;	 /* m1w_part of FETCH and BYTES; else 0 */
	uint64_t total;	 /* bytes in all pieces; FETCH: 0 */
	uint64_t offset; /* of this piece; pieces are put in order */
	uint32_t most;	 /* FETCH: bytes that are wanted at most, > 0; else 0 */
	m1_slice bytes;	 /* FETCH: empty */
} m1w_bytes;

/* A training of an adapter over the model that is served. */
typedef struct m1w_training
{
	m1_slice name; /* which no other training has */
	m1_slice from; /* bytes that were put, or an adapter that is served: it goes on from there; empty: a new adapter */
	int32_t rank;  /* these of a new adapter; of attention and head */
	int32_t expert_rank;
	m1_slice targets; /* "attention,experts,router", or modules by name */
	float alpha;
	uint64_t seed;
} m1w_training;

typedef enum m1w_loss
{
	M1W_LOSS_CE = 0, /* supervised: each token times its weight */
	M1W_LOSS_CISPO,
	M1W_LOSS_GRPO,
	M1W_LOSS_DAPO,
	M1W_LOSS_COUNT
} m1w_loss;

/* A batch, and what is to be learned of it. Arrays have an element of each sequence, or of each token of all. */
typedef struct m1w_lesson
{
	m1_slice training;
	uint8_t loss;		   /* m1w_loss */
	uint8_t update;		   /* 1: gradients, and a step of the optimizer; 0: the loss alone, nothing changes */
	uint8_t want_logprobs; /* 1: m1w_learned.logprobs */
	float cap;			   /* CISPO: ratios of probabilities count for at most this much */
	float low, high;	   /* GRPO, DAPO: the trust region is [1 - low, 1 + high] */
	float kl;			   /* GRPO: times the divergence from ref_logprobs */
	float balance;		   /* times the routers' auxiliary loss */
	float temperature;	   /* that the answers were sampled at; 1 if that was 0 */
	double tokens;		   /* that sums are divided by; 0: the completions' tokens, or of CE the sum of the weights */
	float rate;			   /* learning rate */
	float beta1, beta2, eps, weight_decay;
	float clip;			   /* largest norm of the gradient; 0: any */
	m1w_id_slice lengths;  /* [n] tokens of each sequence */
	m1w_id_slice prompts;  /* [n] how many of them are the prompt's, which is not learned */
	m1w_id_slice shares;   /* [n] sequences of a number >= 0 have their beginning in common; or empty */
	m1_slice advantages;   /* fp32 [n]; empty with CE */
	m1w_id_slice ids;	   /* [tokens] */
	m1_slice weights;	   /* fp32 [tokens] with CE; or empty: 1 */
	m1_slice old_logprobs; /* fp32 [tokens], as they were sampled; may be empty with CE. Of prompts they are not read */
	m1_slice ref_logprobs; /* fp32 [tokens] with GRPO and a KL; or empty */
	m1_slice experts;	   /* uint16 [tokens, layers, experts of a token], as m1w_done has them; or empty */
	m1w_id_slice masked;   /* places in ids of those that were sampled under a mask, ascending; may be empty */
	m1_slice masks;		   /* uint64 [n, words], as m1w_done has them */
	m1w_id_slice mask_of;  /* [masked.len] number of its mask, from 0; or empty: each has its own, in their order */
} m1w_lesson;

/* What became of it. All numbers are 0 where they say nothing. */
typedef struct m1w_learned
{
	int64_t updates;	   /* of the training, since it began */
	uint8_t dropped;	   /* loss or gradient is no number: nothing was changed */
	double loss;		   /* with the auxiliary loss times its weight */
	double balance;		   /* the auxiliary loss */
	double most_load;	   /* largest share of an expert in a layer's choices, times the number of experts */
	double entropy;		   /* mean over the tokens that were predicted */
	double gradient_norm;  /* before it was clipped */
	double old_difference; /* largest |logprob - old_logprob| */
	double old_mean;	   /* mean of it */
	int64_t tokens;		   /* of all sequences */
	int64_t rows;		   /* that were computed for them, fewer where beginnings are shared */
	int64_t learned;	   /* tokens of completions */
	int64_t predicted;	   /* of those, the ones whose logits were needed */
	int64_t clipped;	   /* of those, beyond cap or trust region */
	int64_t rerouted;  /* rows of each layer whose experts, taken again, are not those that the router chooses now */
	double seconds;	   /* that the engine worked on it */
	uint64_t bytes;	   /* of the training, as FETCH gives them */
	m1_slice digest;   /* 16 hexadecimal digits of the adapter's numbers, after TRAINING and SERVE */
	m1_slice logprobs; /* fp32 [tokens] if they were wanted; 0 where they were not predicted */
} m1w_learned;

typedef struct m1w_serve
{
	m1_slice name; /* that requests will name it by, and no other adapter has */
	m1_slice from; /* a training, whose adapter is copied as it is now; or bytes that were put, which are gone then */
} m1w_serve;

typedef enum m1w_kept
{
	M1W_KEPT_BYTES = 0, /* that were put */
	M1W_KEPT_TRAINING,
	M1W_KEPT_ADAPTER, /* requests that use it already go on to their ends */
	M1W_KEPT_COUNT
} m1w_kept;

typedef struct m1w_forget
{
	uint8_t kind; /* m1w_kept */
	m1_slice name;
} m1w_forget;

typedef struct m1w_failure
{
	uint32_t code; /* m1_status, never M1_OK */
	m1_slice message;
	m1_slice detail;
	m1_slice hint;
} m1w_failure;

/* Encoders append the payload (no header) to out; false when memory ran out. */
bool m1w_encode_generate(m1_buf *out, const m1w_generate *m);
bool m1w_encode_words(m1_buf *out, const m1w_words *m);
bool m1w_encode_counted(m1_buf *out, const m1w_counted *m);
bool m1w_encode_text(m1_buf *out, const m1w_text *m);
bool m1w_encode_tokens(m1_buf *out, const m1w_tokens *m);
bool m1w_encode_vector(m1_buf *out, const m1w_vector *m);
bool m1w_encode_ready(m1_buf *out, const m1w_ready *m);
bool m1w_encode_cache(m1_buf *out, const m1w_cache *m);
bool m1w_encode_progress(m1_buf *out, const m1w_progress *m);
bool m1w_encode_delta(m1_buf *out, const m1w_delta *m);
bool m1w_encode_done(m1_buf *out, const m1w_done *m);
bool m1w_encode_failure(m1_buf *out, const m1w_failure *m);
bool m1w_encode_bytes(m1_buf *out, const m1w_bytes *m);
bool m1w_encode_training(m1_buf *out, const m1w_training *m);
bool m1w_encode_lesson(m1_buf *out, const m1w_lesson *m);
bool m1w_encode_learned(m1_buf *out, const m1w_learned *m);
bool m1w_encode_serve(m1_buf *out, const m1w_serve *m);
bool m1w_encode_forget(m1_buf *out, const m1w_forget *m);

m1_status m1w_decode_generate(const void *payload, size_t len, m1w_generate *m, m1_error *err);
m1_status m1w_decode_words(const void *payload, size_t len, m1w_words *m, m1_error *err);
m1_status m1w_decode_counted(const void *payload, size_t len, m1w_counted *m, m1_error *err);
m1_status m1w_decode_text(const void *payload, size_t len, m1w_text *m, m1_error *err);
m1_status m1w_decode_tokens(const void *payload, size_t len, m1w_tokens *m, m1_error *err);
m1_status m1w_decode_vector(const void *payload, size_t len, m1w_vector *m, m1_error *err);
m1_status m1w_decode_ready(const void *payload, size_t len, m1w_ready *m, m1_error *err);
m1_status m1w_decode_cache(const void *payload, size_t len, m1w_cache *m, m1_error *err);
m1_status m1w_decode_progress(const void *payload, size_t len, m1w_progress *m, m1_error *err);
m1_status m1w_decode_delta(const void *payload, size_t len, m1w_delta *m, m1_error *err);
m1_status m1w_decode_done(const void *payload, size_t len, m1w_done *m, m1_error *err);
m1_status m1w_decode_failure(const void *payload, size_t len, m1w_failure *m, m1_error *err);
m1_status m1w_decode_bytes(const void *payload, size_t len, m1w_bytes *m, m1_error *err);
m1_status m1w_decode_training(const void *payload, size_t len, m1w_training *m, m1_error *err);
m1_status m1w_decode_lesson(const void *payload, size_t len, m1w_lesson *m, m1_error *err);
m1_status m1w_decode_learned(const void *payload, size_t len, m1w_learned *m, m1_error *err);
m1_status m1w_decode_serve(const void *payload, size_t len, m1w_serve *m, m1_error *err);
m1_status m1w_decode_forget(const void *payload, size_t len, m1w_forget *m, m1_error *err);

/* Conversions between the error struct and its message. */
m1w_failure m1w_failure_of(const m1_error *err);
void m1w_failure_to_error(const m1w_failure *m, m1_error *err);

/* 16 hexadecimal digits, in small letters: what names a model or an adapter. */
bool m1w_is_digest(m1_slice digest);

#endif
