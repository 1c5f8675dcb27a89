/*
 * proxy.h - an engine that is elsewhere: requests as the engine's (engine/engine.h), computed by servers over HTTP.
 *
 * The tokenizer, the chat form, constraints and the reading of replies are the engine's own; what a server does is to
 * continue tokens. Two kinds of callers, as the engine's: any thread may submit, cancel, pause and resume; one thread
 * calls m1_proxy_step, which waits for servers, and delivers events from inside of it.
 */
#ifndef M1_PROXY_PROXY_H
#define M1_PROXY_PROXY_H

#include "engine/engine.h"

typedef struct m1_proxy m1_proxy;

typedef struct m1_proxy_options
{
	const char *model_path;	  /* of a folder with config.json and the tokenizer, or of a GGUF file */
	const char *urls;		  /* of servers, with commas between */
	const char *dialect;	  /* "auto", or one of m1_dialect_parse */
	const char *model_name;	  /* as servers call it; "" = the first that they name */
	const char *api_key_file; /* read anew where a server refuses the key; NULL or "" = there is none */
	const char *ca_file;	  /* NULL = the system's certificates */
	int max_context;		  /* 0 = the model's own, or what servers say */
	int silence;			  /* seconds that a server may say nothing */
	void (*log)(void *context, const char *line);
	void *log_context;
} m1_proxy_options;

/*
 * Asks all servers what they are, and returns when each has answered or failed. Texts of the options must outlive it.
 * M1_E_UNAVAILABLE when no server can be reached; M1_E_INVALID_ARGUMENT when those that can have another model.
 */
m1_status m1_proxy_open(const m1_proxy_options *options, const m1_engine_events *events, m1_proxy **out, m1_error *err);

const m1_model *m1_proxy_model(const m1_proxy *p);
m1w_ready m1_proxy_info(const m1_proxy *p);

/* As those of the engine. */
m1_status m1_proxy_generate(m1_proxy *p, uint64_t id, const m1w_generate *g, m1_work *work, m1_error *err);
void m1_proxy_cancel(m1_proxy *p, uint64_t id);
void m1_proxy_pause(m1_proxy *p, uint64_t id);
void m1_proxy_resume(m1_proxy *p, uint64_t id);

/* Waits for mail or for servers, and does what they ask for. A failure is the end of the proxy. */
m1_status m1_proxy_step(m1_proxy *p, m1_error *err);

#endif
