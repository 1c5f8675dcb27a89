/*
 * serving.h - frames on an inherited socket, for whatever answers them: the engine in this process (cmd_serve.c), or
 * servers elsewhere (cmd_proxy.c).
 */
#ifndef M1_COMMANDS_SERVING_H
#define M1_COMMANDS_SERVING_H

#include "commands/cli.h"

/* What answers. Any thread calls these, but `step`, which is the step thread's; see engine/engine.h. */
typedef struct m1_served
{
	m1_status (*open)(const m1_cli *cli, const m1_engine_events *events, void **out, m1_error *err);
	const m1_model *(*model)(const void *engine);
	m1w_ready (*info)(const void *engine);
	m1_status (*generate)(void *engine, uint64_t id, const m1w_generate *g, m1_work *work, m1_error *err);
	m1_status (*logits)(void *engine, uint64_t id, m1w_id_slice ids, m1_error *err);
	m1_status (*learn)(void *engine, uint64_t id, m1w_type type, m1_buf *payload, m1_work *work, m1_error *err);
	void (*cancel)(void *engine, uint64_t id);
	void (*pause)(void *engine, uint64_t id);
	void (*resume)(void *engine, uint64_t id);
	/* Does what there is to do, and waits where that is nothing. A failure ends the process. */
	m1_status (*step)(void *engine, m1_error *err);
} m1_served;

/* Until the socket ends; returns only what is wrong from the start, as exit status. command: its name. */
int m1_serve(const m1_cli *cli, const char *command, const m1_served *served);

#endif
