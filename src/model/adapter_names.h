/*
 * adapter_names.h - how adapter files call weights. Any thread.
 */
#ifndef M1_MODEL_ADAPTER_NAMES_H
#define M1_MODEL_ADAPTER_NAMES_H

#include <stdio.h>
#include <string.h>

#include "model/roles.h"

#define M1_ADAPTER_NAME_SIZE 192

/* The module of a weight, "model.layers.0.self_attn.q_proj": its tensor's name without ".weight". */
static inline void
m1_adapter_module_name(m1_role role, int layer, int expert, char name[M1_ADAPTER_NAME_SIZE])
{
	m1_role_name(role, M1_NAMES_SAFETENSORS, layer, expert, name, M1_ADAPTER_NAME_SIZE);
	name[strlen(name) - strlen(".weight")] = '\0';
}

/* "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" of a module and ".lora_A.weight" */
static inline void
m1_adapter_tensor_name(const char *module, const char *suffix, char name[M1_ADAPTER_NAME_SIZE])
{
	snprintf(name, M1_ADAPTER_NAME_SIZE, "base_model.model.%.120s%s", module, suffix);
}

#endif
