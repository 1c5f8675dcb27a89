/*
 * settings.c
 *	  All settings in one table: what the server is told of them, and for those
 *	  that the engine is started with, its option.
 *
 *	  The variables are PostgreSQL's to write; every process has its own.
 */
#include "pg/settings.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

char	   *m1pg_model;
char	   *m1pg_engine_path;
char	   *m1pg_engine_url;
int			m1pg_device;
int			m1pg_max_requests;
int			m1pg_reserved_requests;
int			m1pg_max_queue;

int			m1pg_max_tokens;
int			m1pg_default_thinking_budget;
int			m1pg_prefix_cache_sharing;
int			m1pg_request_timeout;
double		m1pg_temperature;
double		m1pg_top_p;
char	   *m1pg_system_prompt;
char	   *m1pg_adapter;
int			m1pg_on_error;

int			m1pg_max_requests_per_session;
int			m1pg_max_requests_per_role;
int			m1pg_unread_memory;
int			m1pg_unread_timeout;
int			m1pg_max_calls_per_statement;
int			m1pg_max_tokens_per_statement;
int			m1pg_max_usage_rows;
char	   *m1pg_context_tiers;

int			m1pg_job_requests;
int			m1pg_max_job_runners;
int			m1pg_job_lease;
int			m1pg_job_retry_delay;
int			m1pg_job_write_timeout;
int			m1pg_job_retention;

int			m1pg_reward_timeout;

/* For a value that no code here reads as a variable: it needs a place, but no name. */
#define UNNAMED(type)	(&(type) {0})

/* ---- words and checks ---- */

static const struct config_enum_entry device_words[] = {
	{"auto", M1_DEVICE_AUTO, false},
	{"cpu", M1_DEVICE_CPU, false},
	{"cuda", M1_DEVICE_CUDA, false},
	{NULL, 0, false}
};

/* Only the engine knows what these are, and those that follow. */
static const struct config_enum_entry dialect_words[] = {
	{"auto", 0, false},
	{"vllm", 1, false},
	{"llama.cpp", 2, false},
	{"sglang", 3, false},
	{"openai", 4, false},
	{NULL, 0, false}
};

static const struct config_enum_entry weight_format_words[] = {
	{"stored", 0, false},
	{"q8_0", 1, false},
	{"fp8", 2, false},
	{"q4", 3, false},
	{NULL, 0, false}
};

static const struct config_enum_entry sharing_words[] = {
	{"role", M1_SHARE_ROLE, false},
	{"database", M1_SHARE_DATABASE, false},
	{"all", M1_SHARE_ALL, false},
	{NULL, 0, false}
};

static const struct config_enum_entry on_error_words[] = {
	{"error", M1_ON_ERROR_RAISE, false},
	{"null", M1_ON_ERROR_NULL, false},
	{NULL, 0, false}
};

static bool
check_top_p(double *value, void **extra, GucSource source)
{
	if (*value > 0.0)
		return true;
	GUC_check_errdetail("minimax_m1.top_p must be above 0.");
	return false;
}

int
m1pg_parse_context_tiers(const char *setting, int32 tiers[M1PG_MAX_TIERS])
{
	int			n = 0;
	const char *s = setting;

	while (*s == ' ')
		s++;
	if (*s == '\0')
		return 0;
	for (;;)
	{
		char	   *end;
		long		bound;

		while (*s == ' ')
			s++;
		if (*s < '0' || *s > '9')
			return -1;
		errno = 0;
		bound = strtol(s, &end, 10);
		if (errno != 0 || bound < 1 || bound > INT_MAX || n == M1PG_MAX_TIERS || (n > 0 && bound <= tiers[n - 1]))
			return -1;
		tiers[n++] = (int32) bound;
		for (s = end; *s == ' ';)
			s++;
		if (*s == '\0')
			return n;
		if (*s++ != ',')
			return -1;
	}
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

/* ---- the table ---- */

typedef enum SettingKind
{
	SETTING_INT,
	SETTING_REAL,
	SETTING_TEXT,
	SETTING_ENUM
} SettingKind;

typedef struct Setting
{
	const char *name;
	GucContext	context;
	int			flags;
	const char *summary;
	const char *detail;			/* NULL = none */
	SettingKind kind;
	union
	{
		struct
		{
			int		   *variable;
			int			boot;
			int			low;
			int			high;
		}			integer;
		struct
		{
			double	   *variable;
			double		boot;
			double		low;
			double		high;
			GucRealCheckHook check;
		}			real;
		struct
		{
			char	  **variable;
			const char *boot;
			GucStringCheckHook check;
		}			text;
		struct
		{
			int		   *variable;
			int			boot;
			const struct config_enum_entry *words;
		}			word;
	}			value;
	/* of the engine, which gets the value as SHOW would tell it without its unit */
	const char *option;
	const char *elsewhere;		/* the same, where the engine is elsewhere */
} Setting;

/* variable, value at start, and bounds, check or words */
#define INT(...)	.kind = SETTING_INT, .value.integer = {__VA_ARGS__}
#define REAL(...)	.kind = SETTING_REAL, .value.real = {__VA_ARGS__}
#define TEXT(...)	.kind = SETTING_TEXT, .value.text = {__VA_ARGS__}
#define ENUM(...)	.kind = SETTING_ENUM, .value.word = {__VA_ARGS__}

static const Setting settings[] = {

	/*
	 * The engine. A reload that changes its command line makes it finish what
	 * it runs and restart. Model and engine_path give no option here: the
	 * command line has paths that are made of them.
	 */
	{
		"minimax_m1.model", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
		"Sets the model: the name of a bundled one, or the path of a checkpoint folder or GGUF file.", NULL,
		TEXT(&m1pg_model, "m1-nano")
	},
	{
		"minimax_m1.engine_path", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
		"Sets the engine executable; empty means the one beside the library.", NULL,
		TEXT(&m1pg_engine_path, "")
	},
	{
		"minimax_m1.engine_url", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
		"Sets the servers that run the model elsewhere; empty means the engine on this machine.",
		"It is a list of urls with commas between. minimax_m1.model is then the folder of config.json and tokenizer.",
		TEXT(&m1pg_engine_url, ""), .elsewhere = "--url"
	},
	{
		"minimax_m1.engine_dialect", PGC_SIGHUP, 0,
		"Sets what these servers are; \"auto\" means that they are asked.", NULL,
		ENUM(UNNAMED(int), 0, dialect_words), .elsewhere = "--dialect"
	},
	{
		"minimax_m1.engine_model", PGC_SIGHUP, 0,
		"Sets what these servers call the model; empty means the first that they name.", NULL,
		TEXT(UNNAMED(char *), ""), .elsewhere = "--served-model"
	},
	{
		"minimax_m1.engine_api_key_file", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
		"Sets the file that holds the key which these servers ask for; empty means none.", NULL,
		TEXT(UNNAMED(char *), ""), .elsewhere = "--api-key-file"
	},
	{
		"minimax_m1.engine_ca_file", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
		"Sets the file of certificates that those of these servers are signed by; empty means the system's.", NULL,
		TEXT(UNNAMED(char *), ""), .elsewhere = "--ca-file"
	},
	{
		"minimax_m1.engine_timeout", PGC_SIGHUP, GUC_UNIT_S,
		"Sets how long such a server may say nothing while it works on a request.", NULL,
		INT(UNNAMED(int), 600, 1, INT_MAX), .elsewhere = "--server-timeout"
	},
	{
		"minimax_m1.device", PGC_SIGHUP, 0,
		"Sets the device that runs the model.",
		"\"cuda\" fails where there is no GPU; \"auto\" takes the CPU then.",
		ENUM(&m1pg_device, M1_DEVICE_AUTO, device_words), .option = "--device"
	},
	{
		"minimax_m1.weight_format", PGC_SIGHUP, 0,
		"Sets what the large matrices of a checkpoint of floats are quantized to while it is loaded.",
		"\"stored\" keeps them as they are. Weights that are quantized already are never changed.",
		ENUM(UNNAMED(int), 0, weight_format_words), .option = "--weight-format"
	},
	{
		"minimax_m1.gpus", PGC_SIGHUP, 0,
		"Sets how many GPUs share the model, where the device is a GPU.", NULL,
		INT(UNNAMED(int), 1, 1, 16), .option = "--gpus"
	},
	{
		"minimax_m1.threads", PGC_SIGHUP, 0,
		"Sets the number of threads of the engine; 0 means one per core.", NULL,
		INT(UNNAMED(int), 0, 0, 1024), .option = "--threads"
	},
	{
		"minimax_m1.max_requests", PGC_POSTMASTER, 0,
		"Sets how many requests the model works on at the same time.", NULL,
		INT(&m1pg_max_requests, 8, 1, 1024), .option = "--max-requests"
	},
	{
		"minimax_m1.reserved_requests", PGC_POSTMASTER, 0,
		"Sets how many requests of roles that have none in the batch the model works on beyond max_requests.",
		"So long replies of one role in all places do not keep another one waiting.",
		INT(&m1pg_reserved_requests, 2, 0, 1024), .option = "--reserved-requests"
	},
	{
		"minimax_m1.max_context", PGC_SIGHUP, 0,
		"Sets the tokens that one request may use, prompt and reply together; 0 means the model's own limit.", NULL,
		INT(UNNAMED(int), 0, 0, INT_MAX), .option = "--max-context", .elsewhere = "--max-context"
	},
	{
		"minimax_m1.kv_cache_size", PGC_SIGHUP, GUC_UNIT_MB,
		"Sets the memory for keys and values of running requests; 0 means a safe share of the machine's.",
		"Requests wait until there is room for them; one that could never have it is refused.",
		INT(UNNAMED(int), 0, 0, INT_MAX), .option = "--kv-cache"
	},
	{
		"minimax_m1.prefix_cache_size", PGC_SIGHUP, GUC_UNIT_MB,
		"Sets the memory for snapshots of prompts' beginnings; 0 means that none are kept.", NULL,
		INT(UNNAMED(int), 256, 0, INT_MAX), .option = "--prefix-cache"
	},
	{
		"minimax_m1.learning_share", PGC_SIGHUP, 0,
		"Sets which share of the engine's time learning may take while requests are served.",
		"While none is, it takes all of it.",
		REAL(UNNAMED(double), 0.3, 0.0, 0.95), .option = "--learning-share"
	},
	{
		"minimax_m1.adapter_memory", PGC_SIGHUP, GUC_UNIT_MB,
		"Sets the memory that the engine keeps adapters in; 0 means a quarter of the machine's.",
		"Beyond it, those that no request uses are given up, and given to the engine again when they are wanted.",
		INT(UNNAMED(int), 0, 0, INT_MAX), .option = "--adapter-memory"
	},

	/* What the functions use where an argument is NULL. */
	{
		"minimax_m1.max_tokens", PGC_USERSET, 0,
		"Sets the length of a reply at most, reasoning included.",
		"What the context leaves is the limit in any case.",
		INT(&m1pg_max_tokens, 81920, 1, INT_MAX)
	},
	{
		"minimax_m1.default_thinking_budget", PGC_USERSET, 0,
		"Sets the tokens of reasoning at most; -1 means no limit, 0 no reasoning.", NULL,
		INT(&m1pg_default_thinking_budget, -1, -1, INT_MAX)
	},
	{
		"minimax_m1.prefix_cache_sharing", PGC_SUSET, 0,
		"Sets whose snapshots of prompts' beginnings a request may use.",
		"How fast an answer comes tells whether somebody in the same circle has used the same beginning.",
		ENUM(&m1pg_prefix_cache_sharing, M1_SHARE_ROLE, sharing_words)
	},
	{
		"minimax_m1.request_timeout", PGC_USERSET, GUC_UNIT_MS,
		"Sets how long a request may take, waiting included; 0 means no limit.", NULL,
		INT(&m1pg_request_timeout, 0, 0, INT_MAX)
	},
	{
		"minimax_m1.temperature", PGC_USERSET, 0,
		"Sets the randomness of replies; 0 means always the likeliest token.", NULL,
		REAL(&m1pg_temperature, 1.0, 0.0, 100.0)
	},
	{
		"minimax_m1.top_p", PGC_USERSET, 0,
		"Sets the share of probability that sampling chooses from.", NULL,
		REAL(&m1pg_top_p, 0.95, 0.0, 1.0, check_top_p)
	},
	{
		"minimax_m1.adapter", PGC_USERSET, 0,
		"Sets the adapter that requests use; empty or base means none.", NULL,
		TEXT(&m1pg_adapter, "")
	},
	{
		"minimax_m1.system_prompt", PGC_USERSET, 0,
		"Sets the system prompt.", NULL,
		TEXT(&m1pg_system_prompt, "You are a helpful assistant.")
	},
	{
		"minimax_m1.on_error", PGC_USERSET, 0,
		"Sets what a function that returns one value does when its request fails.",
		"\"null\" makes NULL of it. A cancel or a statement timeout is an error in any case.",
		ENUM(&m1pg_on_error, M1_ON_ERROR_RAISE, on_error_words)
	},

	/* Limits, and what counts usage. */
	{
		"minimax_m1.max_queue", PGC_POSTMASTER, 0,
		"Sets how many further requests may wait.", NULL,
		INT(&m1pg_max_queue, 1000, 0, 60000)
	},
	{
		"minimax_m1.max_requests_per_session", PGC_SUSET, 0,
		"Sets how many requests a session may have open at the same time; 0 means twice max_requests, but 16 at least.",
		"A request is open until its reply is complete and has been delivered.",
		INT(&m1pg_max_requests_per_session, 0, 0, 65535)
	},
	{
		"minimax_m1.max_requests_per_role", PGC_SIGHUP, 0,
		"Sets how many requests a role may have open at the same time; 0 means that some are always left for others.",
		"Quotas of roles may set less.",
		INT(&m1pg_max_requests_per_role, 0, 0, 65535)
	},
	{
		"minimax_m1.unread_memory", PGC_SIGHUP, GUC_UNIT_KB,
		"Sets the memory for streams that are not read, so that they come to their end where others wait for a place.",
		NULL,
		INT(&m1pg_unread_memory, 64 * 1024, 0, MAX_KILOBYTES)
	},
	{
		"minimax_m1.unread_timeout", PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how long a stream that is not read may stand still, when that memory is used up and others wait.", NULL,
		INT(&m1pg_unread_timeout, 60 * 1000, 0, INT_MAX)
	},
	{
		"minimax_m1.max_calls_per_statement", PGC_USERSET, 0,
		"Sets how often one statement may call the model; 0 means no limit.", NULL,
		INT(&m1pg_max_calls_per_statement, 0, 0, INT_MAX)
	},
	{
		"minimax_m1.max_tokens_per_statement", PGC_USERSET, 0,
		"Sets how many tokens one statement may use, prompts and replies together; 0 means no limit.", NULL,
		INT(&m1pg_max_tokens_per_statement, 0, 0, INT_MAX)
	},
	{
		"minimax_m1.max_usage_rows", PGC_POSTMASTER, 0,
		"Sets the rows of the usage view: one per role, function, month and price tier.",
		"What does not fit is counted in one row for all.",
		INT(&m1pg_max_usage_rows, 10000, 10, 1000000)
	},
	{
		"minimax_m1.context_tiers", PGC_SIGHUP, 0,
		"Sets the lengths of a prompt from which on usage is counted apart, because it is priced apart.", NULL,
		TEXT(&m1pg_context_tiers, "200000", check_context_tiers)
	},
	{
		M1PG_QUOTA_TOKENS, PGC_SUSET, GUC_DISALLOW_IN_FILE,
		"Sets how many tokens a role may use in an hour; empty means no limit.",
		"It counts as a setting of a role only: see minimax_m1.set_quota.",
		TEXT(UNNAMED(char *), "", check_quota_tokens)
	},
	{
		M1PG_QUOTA_CONCURRENT, PGC_SUSET, GUC_DISALLOW_IN_FILE,
		"Sets how many requests a role may have at the same time; -1 means no limit.",
		"It counts as a setting of a role only: see minimax_m1.set_quota.",
		INT(UNNAMED(int), -1, -1, INT_MAX)
	},
	{
		M1PG_SHARE, PGC_SUSET, GUC_DISALLOW_IN_FILE,
		"Sets how many places in the batch a role gets where another gets one, while both have requests that wait.",
		"It counts as a setting of a role only: ALTER ROLE ... SET.",
		INT(UNNAMED(int), 1, 1, 1000)
	},

	/* Jobs. Changes are taken up at reload by launcher and runners. */
	{
		"minimax_m1.job_requests", PGC_SIGHUP, 0,
		"Sets how many jobs of a database the model works on at the same time; 0 means max_requests.", NULL,
		INT(&m1pg_job_requests, 0, 0, 1024)
	},
	{
		"minimax_m1.max_job_runners", PGC_SIGHUP, 0,
		"Sets how many databases have their jobs run at the same time.",
		"Each takes a background worker while it has work; 0 means that no jobs are run.",
		INT(&m1pg_max_job_runners, 2, 0, 64)
	},
	{
		"minimax_m1.job_lease", PGC_SIGHUP, GUC_UNIT_S,
		"Sets for how long a job belongs to its runner unless the runner renews it.", NULL,
		INT(&m1pg_job_lease, 60, 5, 86400)
	},
	{
		"minimax_m1.job_retry_delay", PGC_SIGHUP, GUC_UNIT_MS,
		"Sets the pause after the first failed attempt at a job; it doubles with each.", NULL,
		INT(&m1pg_job_retry_delay, 5000, 1, 3600000)
	},
	{
		"minimax_m1.job_write_timeout", PGC_SIGHUP, GUC_UNIT_MS,
		"Sets how long writing one annotation into its row may take.",
		"It counts what the triggers of the table do. A job that takes longer fails, and is tried again later.",
		INT(&m1pg_job_write_timeout, 5000, 10, 600000)
	},
	{
		"minimax_m1.agent_run_timeout", PGC_SUSET, GUC_UNIT_S,
		"Sets how long a submitted run of an agent may take at most; 0 means no limit.",
		"It does not hold for superusers. An agent whose timeout is longer cannot be submitted.",
		INT(UNNAMED(int), 600, 0, INT_MAX)
	},
	{
		"minimax_m1.job_retention", PGC_SIGHUP, GUC_UNIT_MIN,
		"Sets for how long submitted jobs are kept after their end; -1 means for ever.", NULL,
		INT(&m1pg_job_retention, 7 * 24 * 60, -1, INT_MAX)
	},
	{
		"minimax_m1.reward_timeout", PGC_USERSET, GUC_UNIT_MS,
		"Sets the time limit of one call of a reward.", NULL,
		INT(&m1pg_reward_timeout, 5000, 10, 600000)
	},
	{
		"minimax_m1.training_retention", PGC_SIGHUP, 0,
		"Sets of how many steps of a training the answers are kept; -1 means of all.",
		"Those of held-out rows before the first step stay in any case.",
		INT(UNNAMED(int), 50, -1, INT_MAX)
	},
};

/* ---- what is made of it ---- */

static void
define(const Setting *s)
{
	switch (s->kind)
	{
		case SETTING_INT:
			DefineCustomIntVariable(s->name, s->summary, s->detail, s->value.integer.variable, s->value.integer.boot,
									s->value.integer.low, s->value.integer.high, s->context, s->flags,
									NULL, NULL, NULL);
			break;
		case SETTING_REAL:
			DefineCustomRealVariable(s->name, s->summary, s->detail, s->value.real.variable, s->value.real.boot,
									 s->value.real.low, s->value.real.high, s->context, s->flags,
									 s->value.real.check, NULL, NULL);
			break;
		case SETTING_TEXT:
			DefineCustomStringVariable(s->name, s->summary, s->detail, s->value.text.variable, s->value.text.boot,
									   s->context, s->flags, s->value.text.check, NULL, NULL);
			break;
		case SETTING_ENUM:
			DefineCustomEnumVariable(s->name, s->summary, s->detail, s->value.word.variable, s->value.word.boot,
									 s->value.word.words, s->context, s->flags, NULL, NULL, NULL);
			break;
	}
}

void
m1pg_define_settings(void)
{
	/* those that only a start of the server changes size shared memory: a session that loads the library has none */
	for (int i = 0; i < lengthof(settings); i++)
		if (settings[i].context != PGC_POSTMASTER || process_shared_preload_libraries_in_progress)
			define(&settings[i]);
#if PG_VERSION_NUM >= 150000
	MarkGUCPrefixReserved("minimax_m1");
#else
	EmitWarningsOnPlaceholders("minimax_m1");
#endif
}

const char *
m1pg_engine_option(int n, const char **value)
{
	const bool	elsewhere = m1pg_engine_url[0] != '\0';

	for (int i = 0; i < lengthof(settings); i++)
	{
		const char *option = elsewhere ? settings[i].elsewhere : settings[i].option;

		if (option != NULL && n-- == 0)
		{
			*value = GetConfigOption(settings[i].name, false, false);
			return option;
		}
	}
	return NULL;
}

const char *
m1pg_session_adapter(void)
{
	return m1pg_adapter[0] == '\0' || strcmp(m1pg_adapter, M1PG_BASE) == 0 ? NULL : m1pg_adapter;
}
