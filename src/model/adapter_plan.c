/* adapter_plan.c - see adapter_plan.h. */
#include "model/adapter_plan.h"

#include <math.h>
#include <string.h>

#include "base/random.h"
#include "blocks/blocks.h"
#include "model/adapter_names.h"

#define ROLE(role) (1u << M1_ROLE_##role)
#define ATTENTION \
	(ROLE(QKV) | ROLE(OUTPUT_GATE) | ROLE(LIGHTNING_OUT) | ROLE(Q) | ROLE(K) | ROLE(V) | ROLE(SOFTMAX_OUT))
#define EXPERTS (ROLE(W1) | ROLE(W2) | ROLE(W3))

#define LOOK_EACH 65536 /* numbers, whether they are still wanted */

m1_adapter_plan
m1_adapter_default_plan(void)
{
	return (m1_adapter_plan){
		.rank = 16, .expert_rank = 1, .targets = ATTENTION | EXPERTS | ROLE(ROUTER), .alpha = 32.0f};
}

/* ---- targets ---- */

typedef struct kind
{
	const char *name;
	unsigned roles;
} kind;

static bool
is_called(m1_slice name, const char *what)
{
	return strlen(what) == name.len && memcmp(what, name.data, name.len) == 0;
}

/* The roles of that name: 0 for none. */
static unsigned
roles_called(m1_slice name)
{
	static const kind kinds[] = {
		{"attention", ATTENTION}, {"experts", EXPERTS}, {"router", ROLE(ROUTER)}, {"head", ROLE(HEAD)}};
	unsigned roles = 0;

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (is_called(name, kinds[i].name))
			return kinds[i].roles;
	for (int role = 0; role < M1_ROLES; role++)
	{
		char module[M1_ADAPTER_NAME_SIZE];
		const char *dot;

		if (!m1_adapter_may_change((m1_role) role))
			continue;
		m1_adapter_module_name((m1_role) role, 0, 0, module);
		dot = strrchr(module, '.');
		if (is_called(name, dot != NULL ? dot + 1 : module))
			roles |= 1u << role;
	}
	return roles;
}

m1_status
m1_adapter_plan_targets(m1_adapter_plan *plan, m1_slice names, m1_error *err)
{
	plan->targets = 0;
	for (size_t at = 0, end; at <= names.len; at = end + 1)
	{
		m1_slice name = {names.data + at, 0};
		unsigned roles;

		for (end = at; end < names.len && names.data[end] != ','; end++)
			name.len++;
		if ((roles = roles_called(name)) == 0)
		{
			m1_fail(err, M1_E_INVALID_ARGUMENT, "\"%.*s\" is nothing that an adapter can change",
					(int) (name.len < 60 ? name.len : 60), name.data);
			m1_error_detail(err, "There are attention, experts, router and head, and modules of them: qkv_proj, "
								 "output_gate, out_proj, q_proj, k_proj, v_proj, o_proj, w1, w2, w3, gate, lm_head.");
			return M1_E_INVALID_ARGUMENT;
		}
		plan->targets |= roles;
	}
	return M1_OK;
}

/* ---- the adapter ---- */

static m1_status
planned(void *context, m1_role role, int layer, int expert, m1_adapter_shape *shape, m1_error *err)
{
	const m1_adapter_plan *plan = context;

	(void) layer;
	(void) expert;
	(void) err;
	if ((plan->targets >> role & 1u) == 0)
		return M1_OK;
	shape->whole = role == M1_ROLE_ROUTER;
	shape->rank = shape->whole ? 0 : m1_role_of_expert(role) ? plan->expert_rank : plan->rank;
	if (shape->rank > 0)
		shape->scale = plan->alpha / (float) shape->rank;
	return M1_OK;
}

static m1_status
check_plan(const m1_adapter_plan *p, m1_error *err)
{
	const int ranks[] = {p->rank, p->expert_rank};

	for (int i = 0; i < 2; i++)
		if (ranks[i] < 0 || ranks[i] > M1_ADAPTER_MAX_RANK)
			return m1_fail(err, M1_E_INVALID_ARGUMENT, "the rank of an adapter must be between 0 and %d",
						   M1_ADAPTER_MAX_RANK);
	if (!isfinite(p->alpha) || p->alpha <= 0.0f)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "alpha of an adapter must be a positive number");
	return M1_OK;
}

static m1_status
check_size(const m1_adapter *a, size_t most, m1_error *err)
{
	const size_t bytes = m1_adapter_bytes(a);

	if (bytes == 0)
		return m1_fail(err, M1_E_INVALID_ARGUMENT, "an adapter that changes nothing cannot be trained");
	if (most == 0 || bytes <= most)
		return M1_OK;
	m1_fail(err, M1_E_NO_MEMORY, "the adapter is too large");
	m1_error_detail(err, "Its numbers take %zu MB; they may take %zu.", (bytes >> 20) + 1, most >> 20);
	m1_error_hint(err, "Use a smaller {rank}, or fewer {targets}.");
	return M1_E_NO_MEMORY;
}

/* A of one weight. false: the work does not go on. */
static bool
fill_random(m1_adapter_target *t, uint64_t seed, uint64_t *n, m1_work *work)
{
	const float width = 1.0f / sqrtf((float) t->cols);

	for (size_t k = 0; k < (size_t) t->rank * (size_t) t->cols; k++)
		if (*n % LOOK_EACH == 0 && !m1_work_goes_on(work, 0))
			return false;
		else
			t->a[k] = width * (float) (2.0 * m1_random_uniform(seed, (*n)++) - 1.0);
	return true;
}

static m1_status
fill_new(m1_adapter *a, const m1_adapter_plan *plan, const m1_config *c, const m1_checkpoint *base, m1_error *err)
{
	m1_adapter_target *targets;
	uint64_t n = 0;
	int n_targets;

	targets = m1_adapter_targets(a, &n_targets);
	for (int i = 0; i < n_targets; i++)
	{
		m1_adapter_target *t = &targets[i];
		m1_weight w;
		m1_status status;

		if (!fill_random(t, plan->seed, &n, plan->work))
			return m1_work_stopped(plan->work, "a new adapter", err);
		if (t->whole == NULL)
			continue;
		if ((status = m1_role_find(t->role, base, c, t->layer, t->expert, &w, err)) != M1_OK)
			return status;
		m1b_dequantize(w.type, w.data, (size_t) t->rows * (size_t) t->cols, t->whole);
	}
	return M1_OK;
}

m1_status
m1_adapter_create(const m1_adapter_plan *plan, const m1_config *config, const m1_checkpoint *base, m1_adapter **out,
				  m1_error *err)
{
	m1_adapter_plan copy = *plan;
	m1_status status;

	*out = NULL;
	if ((status = check_plan(plan, err)) != M1_OK ||
		(status = m1_adapter_build(config, planned, &copy, out, err)) != M1_OK)
		return status;
	if ((status = check_size(*out, plan->most_bytes, err)) == M1_OK &&
		(status = fill_new(*out, plan, config, base, err)) == M1_OK)
		return M1_OK;
	m1_adapter_free(*out);
	*out = NULL;
	return status;
}
