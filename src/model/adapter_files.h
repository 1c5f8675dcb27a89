/*
 * adapter_files.h - adapters as folders in PEFT's format: adapter_config.json and adapter_model.safetensors, whose
 * tensors are named after modules: "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight".
 *
 * Ours name the digest of their base besides, in the metadata of the second file, and are refused on another one.
 * Everything is checked: a tensor that is missing, has another shape or type, holds what is no number, or is not
 * understood is an error that names it.
 */
#ifndef M1_MODEL_ADAPTER_FILES_H
#define M1_MODEL_ADAPTER_FILES_H

#include "model/adapter.h"
#include "model/source.h"

#define M1_ADAPTER_MODEL "adapter_model.safetensors"
#define M1_ADAPTER_BASE_KEY "base_digest"

/* The model that adapters are for. */
typedef struct m1_adapter_base
{
	const m1_source *source;
	const m1_config *config;
	const m1_checkpoint *checkpoint;
} m1_adapter_base;

m1_status m1_adapter_load(const char *dir, const m1_adapter_base *base, m1_adapter **out, m1_error *err);

/* Writes both files into the folder, which must exist; each replaces the one that was there only when it is whole. */
m1_status m1_adapter_save(const m1_adapter *a, const char *dir, const m1_adapter_base *base, m1_error *err);

#endif
