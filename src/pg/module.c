/*
 * module.c
 *	  Library load: settings, shared memory and the background worker.
 */
#include "pg/jobs/jobs.h"
#include "pg/shared.h"
#include "pg/usage/quota.h"
#include "pg/usage/usage.h"

#include <limits.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

char	   *m1pg_model;
int			m1pg_weight_format = M1_FORMAT_STORED;
int			m1pg_device = M1_DEVICE_AUTO;
int			m1pg_gpus;
int			m1pg_threads;
int			m1pg_max_requests;
int			m1pg_max_queue;
int			m1pg_max_context;
int			m1pg_kv_cache_size;
int			m1pg_prefix_cache_size;
int			m1pg_prefix_cache_sharing = M1_SHARE_ROLE;
char	   *m1pg_engine_path;
int			m1pg_max_tokens;
int			m1pg_request_timeout;
int			m1pg_default_thinking_budget;
double		m1pg_temperature;
double		m1pg_top_p;
char	   *m1pg_system_prompt;
int			m1pg_on_error = M1_ON_ERROR_RAISE;
int			m1pg_max_calls_per_statement;
int			m1pg_max_tokens_per_statement;
int			m1pg_max_usage_rows;
char	   *m1pg_context_tiers;

/* Never looked at: quotas are read from the catalog, see quota.c. */
static char *quota_tokens_per_hour;
static int	quota_max_concurrent;
int			m1pg_job_requests;
int			m1pg_max_job_runners;
int			m1pg_job_lease;
int			m1pg_job_retry_delay;
int			m1pg_job_retention;

static const struct config_enum_entry device_options[] = {
	{"auto", M1_DEVICE_AUTO, false},
	{"cpu", M1_DEVICE_CPU, false},
	{"cuda", M1_DEVICE_CUDA, false},
	{NULL, 0, false}
};

static const struct config_enum_entry sharing_options[] = {
	{"role", M1_SHARE_ROLE, false},
	{"database", M1_SHARE_DATABASE, false},
	{"all", M1_SHARE_ALL, false},
	{NULL, 0, false}
};

static const struct config_enum_entry weight_format_options[] = {
	{"stored", M1_FORMAT_STORED, false},
	{"q8_0", M1_FORMAT_Q8_0, false},
	{"fp8", M1_FORMAT_FP8, false},
	{"q4", M1_FORMAT_Q4, false},
	{NULL, 0, false}
};

static const struct config_enum_entry on_error_options[] = {
	{"error", M1_ON_ERROR_RAISE, false},
	{"null", M1_ON_ERROR_NULL, false},
	{NULL, 0, false}
};

static shmem_startup_hook_type previous_startup_hook = NULL;
#if PG_VERSION_NUM >= 150000
static shmem_request_hook_type previous_request_hook = NULL;
#endif

const char *
m1pg_device_name(M1Device device)
{
	return device_options[device].name;
}

const char *
m1pg_weight_format_name(M1WeightFormat format)
{
	return weight_format_options[format].name;
}

static bool
check_top_p(double *value, void **extra, GucSource source)
{
	if (*value > 0.0)
		return true;
	GUC_check_errdetail("minimax_m1.top_p must be above 0.");
	return false;
}

static bool
check_context_tiers(char **value, void **extra, GucSource source)
{
	int32		tiers[M1PG_MAX_TIERS];

	if (m1pg_parse_context_tiers(*value, tiers) >= 0)
		return true;
	GUC_check_errdetail("It must be a list of at most %d ascending numbers of tokens.", M1PG_MAX_TIERS);
	return false;
}

static bool
check_quota_tokens(char **value, void **extra, GucSource source)
{
	const char *s = *value;

	/* 18 digits: no sum of a few overflows */
	if (strspn(s, "0123456789") == strlen(s) && strlen(s) <= 18)
		return true;
	GUC_check_errdetail("It must be a number of tokens, or empty for no limit.");
	return false;
}

/* Fixed at server start: they size shared memory. */
static void
define_postmaster_settings(void)
{
	DefineCustomIntVariable("minimax_m1.max_requests",
							"Sets how many requests the model works on at the same time.",
							NULL, &m1pg_max_requests, 8, 1, 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.max_queue",
							"Sets how many further requests may wait.",
							NULL, &m1pg_max_queue, 1000, 0, 60000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.max_usage_rows",
							"Sets the rows of the usage view: one per role, function, month and price tier.",
							"What does not fit is counted in one row for all.",
							&m1pg_max_usage_rows, 10000, 10, 1000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
}

/* Changes are taken up at reload: the engine finishes what it runs and restarts. */
static void
define_engine_settings(void)
{
	DefineCustomStringVariable("minimax_m1.model",
							   "Sets the model: the name of a bundled one, or the path of a checkpoint folder or GGUF file.",
							   NULL, &m1pg_model, "m1-nano",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomEnumVariable("minimax_m1.weight_format",
							 "Sets what the large matrices of a checkpoint of floats are quantized to while it is loaded.",
							 "\"stored\" keeps them as they are. Weights that are quantized already are never changed.",
							 &m1pg_weight_format, M1_FORMAT_STORED, weight_format_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("minimax_m1.device",
							 "Sets the device that runs the model.",
							 "\"cuda\" fails where there is no GPU; \"auto\" takes the CPU then.",
							 &m1pg_device, M1_DEVICE_AUTO, device_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.gpus",
							"Sets how many GPUs share the model, where the device is a GPU.",
							NULL, &m1pg_gpus, 1, 1, 16,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.threads",
							"Sets the number of threads of the engine; 0 means one per core.",
							NULL, &m1pg_threads, 0, 0, 1024,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.max_context",
							"Sets the tokens that one request may use, prompt and reply together; 0 means the model's own limit.",
							NULL, &m1pg_max_context, 0, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.kv_cache_size",
							"Sets the memory for keys and values of running requests; 0 means a safe share of the machine's.",
							"Requests wait until there is room for them; one that could never have it is refused.",
							&m1pg_kv_cache_size, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.prefix_cache_size",
							"Sets the memory for snapshots of prompts' beginnings; 0 means that none are kept.",
							NULL, &m1pg_prefix_cache_size, 256, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomStringVariable("minimax_m1.engine_path",
							   "Sets the engine executable; empty means the one beside the library.",
							   NULL, &m1pg_engine_path, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
}

/* What the functions use where an argument is NULL. */
static void
define_request_settings(void)
{
	DefineCustomIntVariable("minimax_m1.max_tokens",
							"Sets the length of a reply at most, reasoning included.",
							"What the context leaves is the limit in any case.",
							&m1pg_max_tokens, 81920, 1, INT_MAX,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.default_thinking_budget",
							"Sets the tokens of reasoning at most; -1 means no limit, 0 no reasoning.",
							NULL, &m1pg_default_thinking_budget, -1, -1, INT_MAX,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("minimax_m1.prefix_cache_sharing",
							 "Sets whose snapshots of prompts' beginnings a request may use.",
							 "How fast an answer comes tells whether somebody in the same circle has used the same beginning.",
							 &m1pg_prefix_cache_sharing, M1_SHARE_ROLE, sharing_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.request_timeout",
							"Sets how long a request may take, waiting included; 0 means no limit.",
							NULL, &m1pg_request_timeout, 0, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomRealVariable("minimax_m1.temperature",
							 "Sets the randomness of replies; 0 means always the likeliest token.",
							 NULL, &m1pg_temperature, 1.0, 0.0, 100.0,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("minimax_m1.top_p",
							 "Sets the share of probability that sampling chooses from.",
							 NULL, &m1pg_top_p, 0.95, 0.0, 1.0,
							 PGC_USERSET, 0, check_top_p, NULL, NULL);
	DefineCustomStringVariable("minimax_m1.system_prompt",
							   "Sets the system prompt.",
							   NULL, &m1pg_system_prompt, "You are a helpful assistant.",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("minimax_m1.on_error",
							 "Sets what a function that returns one value does when its request fails.",
							 "\"null\" makes NULL of it. A cancel or a statement timeout is an error in any case.",
							 &m1pg_on_error, M1_ON_ERROR_RAISE, on_error_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
}

/* What limits use, and what counts it. */
static void
define_limit_settings(void)
{
	DefineCustomIntVariable("minimax_m1.max_calls_per_statement",
							"Sets how often one statement may call the model; 0 means no limit.",
							NULL, &m1pg_max_calls_per_statement, 0, 0, INT_MAX,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.max_tokens_per_statement",
							"Sets how many tokens one statement may use, prompts and replies together; 0 means no limit.",
							NULL, &m1pg_max_tokens_per_statement, 0, 0, INT_MAX,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("minimax_m1.context_tiers",
							   "Sets the lengths of a prompt from which on usage is counted apart, because it is priced apart.",
							   NULL, &m1pg_context_tiers, "200000",
							   PGC_SIGHUP, 0, check_context_tiers, NULL, NULL);
	DefineCustomStringVariable(M1PG_QUOTA_TOKENS,
							   "Sets how many tokens a role may use in an hour; empty means no limit.",
							   "It counts as a setting of a role only: see minimax_m1.set_quota.",
							   &quota_tokens_per_hour, "",
							   PGC_SUSET, GUC_DISALLOW_IN_FILE, check_quota_tokens, NULL, NULL);
	DefineCustomIntVariable(M1PG_QUOTA_CONCURRENT,
							"Sets how many requests a role may have at the same time; -1 means no limit.",
							"It counts as a setting of a role only: see minimax_m1.set_quota.",
							&quota_max_concurrent, -1, -1, INT_MAX,
							PGC_SUSET, GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
}

/* Changes are taken up at reload by launcher and runners. */
static void
define_job_settings(void)
{
	DefineCustomIntVariable("minimax_m1.job_requests",
							"Sets how many jobs of a database the model works on at the same time; 0 means max_requests.",
							NULL, &m1pg_job_requests, 0, 0, 1024,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.max_job_runners",
							"Sets how many databases have their jobs run at the same time.",
							"Each takes a background worker while it has work; 0 means that no jobs are run.",
							&m1pg_max_job_runners, 2, 0, 64,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.job_lease",
							"Sets for how long a job belongs to its runner unless the runner renews it.",
							NULL, &m1pg_job_lease, 60, 5, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.job_retry_delay",
							"Sets the pause after the first failed attempt at a job; it doubles with each.",
							NULL, &m1pg_job_retry_delay, 5000, 1, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("minimax_m1.job_retention",
							"Sets for how long submitted jobs are kept after their end; -1 means for ever.",
							NULL, &m1pg_job_retention, 7 * 24 * 60, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
}

static void
on_shmem_request(void)
{
#if PG_VERSION_NUM >= 150000
	if (previous_request_hook)
		previous_request_hook();
#endif
	m1pg_shared_request();
}

static void
on_shmem_startup(void)
{
	if (previous_startup_hook)
		previous_startup_hook();
	m1pg_shared_startup();
}

static void
register_worker(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	worker.bgw_restart_time = 2;
	snprintf(worker.bgw_library_name, sizeof worker.bgw_library_name, "minimax_m1");
	snprintf(worker.bgw_function_name, sizeof worker.bgw_function_name, "m1pg_worker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "minimax_m1 worker");
	snprintf(worker.bgw_type, BGW_MAXLEN, "minimax_m1 worker");
	RegisterBackgroundWorker(&worker);
}

void
_PG_init(void)
{
	define_engine_settings();
	define_request_settings();
	define_limit_settings();
	define_job_settings();
	if (process_shared_preload_libraries_in_progress)
		define_postmaster_settings();
#if PG_VERSION_NUM >= 150000
	MarkGUCPrefixReserved("minimax_m1");
#else
	EmitWarningsOnPlaceholders("minimax_m1");
#endif
	if (!process_shared_preload_libraries_in_progress)
		return;
#if PG_VERSION_NUM >= 150000
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = on_shmem_request;
#else
	on_shmem_request();
#endif
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = on_shmem_startup;
	register_worker();
	m1pg_register_job_launcher();
}
