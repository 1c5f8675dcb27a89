/*
 * checkpoint.h - the tensors of a model: of a folder with model.safetensors or the shards that
 * model.safetensors.index.json lists, or of a GGUF file.
 *
 * Files are mapped read-only and stay mapped until close; tensors point into them (so they may be unaligned).
 * Everything a header says is checked before use.
 */
#ifndef M1_FILES_CHECKPOINT_H
#define M1_FILES_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "files/gguf.h"
#include "files/tensor.h"

typedef struct m1_checkpoint m1_checkpoint;

/* How a checkpoint calls its tensors. */
typedef enum m1_naming
{
	M1_NAMES_SAFETENSORS, /* as released: "model.layers.0.self_attn.qkv_proj.weight", one matrix for each expert */
	M1_NAMES_GGUF,		  /* "blk.0.attn_qkv.weight", one tensor for the experts of a layer */
	M1_NAMINGS
} m1_naming;

/* Opens all files of the folder. The error names file and tensor. */
m1_status m1_checkpoint_open(const char *dir, m1_checkpoint **out, m1_error *err);
/* Opens one safetensors file as a checkpoint of its own. */
m1_status m1_checkpoint_open_file(const char *dir, const char *name, m1_checkpoint **out, m1_error *err);
/* The tensors of an open GGUF file, which must stay open until the checkpoint is closed. */
m1_status m1_checkpoint_open_gguf(const m1_gguf *gguf, m1_checkpoint **out, m1_error *err);
void m1_checkpoint_close(m1_checkpoint *c);

/*
 * Bytes of all tensors by the index of the folder, whose shards need not be there; 0 where there is no index, or it
 * does not tell. M1_E_CORRUPT when it is no index.
 */
m1_status m1_checkpoint_promised(const char *dir, uint64_t *bytes, m1_error *err);

m1_naming m1_checkpoint_naming(const m1_checkpoint *c);

/* NULL when there is no tensor of that name. */
const m1_tensor *m1_checkpoint_find(const m1_checkpoint *c, const char *name);

/* An entry of the first file's __metadata__; NULL when there is none, or when it is no text. */
const char *m1_checkpoint_metadata(const m1_checkpoint *c, const char *key);

size_t m1_checkpoint_tensors(const m1_checkpoint *c);
/* In order of their names. */
const m1_tensor *m1_checkpoint_tensor(const m1_checkpoint *c, size_t i);

#endif
