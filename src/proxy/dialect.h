/*
 * dialect.h - what servers are asked and how they answer: one table of functions for each kind of server, over the JSON
 * of its own API. Token ids go out and come back, but for the least of them.
 *
 * Written after the servers' own documentation and sources: vLLM 0.9 to 0.23 (/v1/completions), llama.cpp's server of
 * 2026 (/completion), SGLang 0.4 to 0.5 (/generate), and OpenAI's chat completions. Functions have no state.
 */
#ifndef M1_PROXY_DIALECT_H
#define M1_PROXY_DIALECT_H

#include "engine/request.h"
#include "text/jsonparse.h"

typedef enum m1_dialect_kind
{
	M1_DIALECT_AUTO, /* as the server's own answers tell */
	M1_DIALECT_VLLM,
	M1_DIALECT_LLAMA,
	M1_DIALECT_SGLANG,
	M1_DIALECT_OPENAI,
	M1_DIALECT_COUNT
} m1_dialect_kind;

#define M1_MAX_MODEL_NAME 500 /* bytes; often a path */

/* What a server is, once it has been asked. */
typedef struct m1_server_facts
{
	m1_dialect_kind kind;
	char version[48];				   /* "0.11.0"; "" = not told */
	char model[M1_MAX_MODEL_NAME + 1]; /* as it calls the one that is asked for */
	int context;					   /* tokens of one request; 0 = not told */
	int vocab;						   /* 0 = not told */
	uint64_t parameters;			   /* 0 = not told */
	uint64_t bytes;					   /* of weights; 0 = not told */
	uint64_t adapters;				   /* a bit for each of m1_servers.adapters that it serves */
	int unknown_adapters;			   /* that it serves beyond these */
	bool unknown_tokens;			   /* it does not tell how it makes them of a text */
} m1_server_facts;

/* A stretch of a reply that is asked for. */
typedef struct m1_ask
{
	const m1_server_facts *server;
	const m1_request *request; /* its tokens are the prompt */
	const char *adapter;	   /* NULL = none */
	int n_tokens;			   /* at most */
	unsigned stretch;		   /* its number in the request: each has draws of its own */
	bool whole;		  /* as one answer, with tokens that a stream would leave out; is asked for where some did */
	m1_slice grammar; /* GBNF that the reply goes on by; empty = free */
	m1_slice chat;	  /* for M1_DIALECT_OPENAI: members of the body that say what was asked, in JSON */
} m1_ask;

/* What is asked of tokens that are given: how probable the last n of them are, each after those before it. */
typedef struct m1_score_ask
{
	const m1_server_facts *server;
	const m1_request *request; /* for its adapter and cache */
	const char *adapter;
	const int32_t *tokens;
	int n_tokens;
	int n_scored;
} m1_score_ask;

/* What one event of a stream tells. Texts live as long as the event. */
typedef struct m1_told
{
	m1_ids ids;			/* new tokens */
	float probability;	/* of the last of them; 0 = not told */
	int generated;		/* tokens of this stretch, these included; 0 = not told */
	m1_slice text;		/* of these tokens */
	m1_slice reasoning; /* OpenAI: text that is reasoning */
	bool end_of_turn;	/* the model has ended its turn, or a stop token was met */
	bool finished;		/* the stretch ends, for this reason or another */
	int cached;			/* tokens of the prompt that were; -1 = not told */
	int prefilled;		/* tokens of the prompt; -1 = not told */
	m1_slice failure;	/* why the server gave up; empty = it did not */
} m1_told;

typedef struct m1_dialect
{
	const char *name;	/* "vllm": of the setting */
	const char *called; /* "vLLM": for people */
	const char *path;	/* that replies are asked at */
	bool takes_ids;
	bool separates_caches; /* of different owners */
	bool (*write_ask)(m1_buf *out, const m1_ask *ask);
	/* Adds to *told what an event says, of which it has been told `known` tokens before. false: it makes no sense. */
	bool (*read_event)(const m1_json *event, int known, m1_told *told);
	/* NULL: it cannot tell probabilities. Of n_scored > most_scored, they are asked for one by one. */
	bool (*write_score)(m1_buf *out, const m1_score_ask *ask);
	/* The sum of their logarithms. */
	bool (*read_score)(const m1_json *answer, const m1_score_ask *ask, double *logprob);
	int most_scored;
} m1_dialect;

/* NULL for M1_DIALECT_AUTO. */
const m1_dialect *m1_dialect_of(m1_dialect_kind kind);
/* "auto", "vllm", "llama.cpp", "sglang", "openai"; false for another name. */
bool m1_dialect_parse(const char *name, m1_dialect_kind *kind);

/* What an error says, wherever a server puts that; empty = nothing is found. */
m1_slice m1_told_message(const m1_json *answer);
/* Whether an event is an error, which *told gets. */
bool m1_told_failure(const m1_json *event, m1_told *told);

extern const m1_dialect m1_dialect_vllm, m1_dialect_llama, m1_dialect_sglang, m1_dialect_openai;

#endif
