/* initialise.c - see initialise.h. */
#include "train/initialise.h"

#include <math.h>

#include "base/random.h"
#include "files/safetensors_writer.h"
#include "model/roles.h"

#define CHUNK 4096 /* numbers at a time */

typedef struct initialiser
{
	const m1_config *config;
	m1b_dtype type;
	uint64_t seed;
	uint64_t drawn; /* tensors that had numbers so far */
	m1_safetensors_writer *w;
	bool writing; /* else the list is made */
} initialiser;

/* What DeepNorm makes smaller: the row's part of the branch that is added to the residual. */
static bool
is_branch(const m1_config *c, m1_role role, int row)
{
	switch (role)
	{
		case M1_ROLE_V:
		case M1_ROLE_LIGHTNING_OUT:
		case M1_ROLE_SOFTMAX_OUT:
		case M1_ROLE_W1:
		case M1_ROLE_W2:
		case M1_ROLE_W3:
			return true;
		case M1_ROLE_QKV: /* q, k and v of one head after the other */
			return row / c->head_dim % 3 == 2;
		default:
			return false;
	}
}

/* Half the width of the uniform distribution: its variance is 2 / (rows + cols), of Xavier's normal one, too. */
static double
width_of(const m1_config *c, m1_role role, int row, int rows, int cols)
{
	const double beta = c->postnorm ? pow(8.0 * c->layers, -0.25) : 1.0;
	const double outputs = role == M1_ROLE_QKV ? rows / 3.0 : rows; /* three matrices that are stored as one */

	return sqrt(6.0 / (outputs + cols)) * (is_branch(c, role, row) ? beta : 1.0);
}

static m1_status
write_numbers(initialiser *in, m1_role role, int rows, int cols, m1_error *err)
{
	const uint64_t seed = m1_random_bits(in->seed, in->drawn++);
	const size_t n = (size_t) rows * (size_t) (cols > 0 ? cols : 1);
	float numbers[CHUNK];
	m1_status status = M1_OK;

	for (size_t at = 0, some; at < n && status == M1_OK; at += some)
	{
		some = n - at < CHUNK ? n - at : CHUNK;
		for (size_t i = 0; i < some; i++)
			numbers[i] = cols == 0 ? 1.0f
								   : (float) ((2.0 * m1_random_uniform(seed, at + i) - 1.0) *
											  width_of(in->config, role, (int) ((at + i) / (size_t) cols), rows, cols));
		status = m1_safetensors_writer_floats(in->w, numbers, some, err);
	}
	return status;
}

static m1_status
do_weight(initialiser *in, m1_role role, int layer, int expert, m1_error *err)
{
	int rows, cols;
	char name[128];

	m1_role_shape(role, in->config, &rows, &cols);
	if (in->writing)
		return write_numbers(in, role, rows, cols, err);
	m1_role_name(role, M1_NAMES_SAFETENSORS, layer, expert, name, sizeof name);
	m1_safetensors_write_tensor(in->w, name, role == M1_ROLE_ROUTER ? M1B_F32 : in->type, (const int64_t[]){rows, cols},
								cols > 0 ? 2 : 1);
	return M1_OK;
}

/* Those of F32 come first: see safetensors_writer.h. */
static m1_status
do_layers(initialiser *in, bool routers, m1_error *err)
{
	m1_role roles[M1_ROLES];
	m1_status status = M1_OK;

	for (int layer = 0; layer < in->config->layers; layer++)
		for (int i = 0, n = m1_roles_of_layer(in->config, layer, roles); i < n; i++)
		{
			const int experts = m1_role_of_expert(roles[i]) ? in->config->experts : 1;

			for (int e = 0; e < experts && status == M1_OK && (roles[i] == M1_ROLE_ROUTER) == routers; e++)
				status = do_weight(in, roles[i], layer, e, err);
		}
	return status;
}

static m1_status
do_all(initialiser *in, m1_error *err)
{
	m1_status status;

	if ((status = do_layers(in, true, err)) != M1_OK || (status = do_weight(in, M1_ROLE_EMBED, 0, 0, err)) != M1_OK ||
		(status = do_layers(in, false, err)) != M1_OK ||
		(status = do_weight(in, M1_ROLE_FINAL_NORM, 0, 0, err)) != M1_OK || in->config->tied_head)
		return status;
	return do_weight(in, M1_ROLE_HEAD, 0, 0, err);
}

m1_status
m1_initialise(const m1_config *config, m1b_dtype type, uint64_t seed, const char *path, m1_error *err)
{
	initialiser in = {.config = config, .type = type, .seed = seed};
	m1_status status;

	if ((status = m1_safetensors_writer_create(path, true, &in.w, err)) != M1_OK)
		return status;
	m1_safetensors_write_metadata(in.w, "format", "pt");
	if ((status = do_all(&in, err)) == M1_OK && (status = m1_safetensors_writer_begin(in.w, err)) == M1_OK)
	{
		in.writing = true;
		if ((status = do_all(&in, err)) == M1_OK)
			status = m1_safetensors_writer_finish(in.w, err);
	}
	m1_safetensors_writer_free(in.w);
	return status;
}
