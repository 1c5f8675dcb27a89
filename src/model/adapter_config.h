/*
 * adapter_config.h - what adapter_config.json says, in PEFT's words: which modules of a model a LoRA adapter changes,
 * and how. What would make other numbers than we compute is refused by its name.
 *
 * Belongs to whoever loads an adapter, for as long as that takes; one thread.
 */
#ifndef M1_MODEL_ADAPTER_CONFIG_H
#define M1_MODEL_ADAPTER_CONFIG_H

#include "model/adapter.h"

#define M1_ADAPTER_CONFIG "adapter_config.json"

typedef struct m1_adapter_config m1_adapter_config;

/* M1_E_NOT_FOUND when the folder has no such file, M1_E_UNSUPPORTED for what we do not do, M1_E_CORRUPT else. */
m1_status m1_adapter_config_load(const char *dir, m1_adapter_config **out, m1_error *err);
void m1_adapter_config_free(m1_adapter_config *c);

typedef enum m1_whole
{
	M1_WHOLE_NO,
	M1_WHOLE_MAYBE, /* some versions of PEFT save it, others do not: the file decides */
	M1_WHOLE_YES,
} m1_whole;

/*
 * What becomes of a module, as "model.layers.0.self_attn.q_proj": its rank and scale, shape->whole is left alone; and
 * whether its whole weight was trained. M1_E_UNSUPPORTED when a pattern takes too long to match.
 */
m1_status m1_adapter_config_module(const m1_adapter_config *c, const char *module, m1_adapter_shape *shape,
								   m1_whole *whole, m1_error *err);

#endif
