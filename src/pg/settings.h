/*
 * settings.h - the settings that C code reads, by who reads them.
 *
 * settings.c has all of them in one table, and sets these. Those that only the
 * engine heeds have no variable: they are words of its command line.
 */
#ifndef M1PG_SETTINGS_H
#define M1PG_SETTINGS_H

#include "pg/m1pg.h"

extern void m1pg_define_settings(void);

/* ---- the engine, and how many slots there are ---- */

typedef enum M1Device
{
	M1_DEVICE_AUTO,
	M1_DEVICE_CPU,
	M1_DEVICE_CUDA
} M1Device;

extern char *m1pg_model;
extern char *m1pg_engine_path;
extern char *m1pg_engine_url;	/* empty = the engine is on this machine */
extern int	m1pg_device;
extern int	m1pg_max_requests;
extern int	m1pg_reserved_requests;
extern int	m1pg_max_queue;

/*
 * Option number n of the command line of the engine, here or elsewhere, or NULL
 * behind the last. *value lives until the next call.
 */
extern const char *m1pg_engine_option(int n, const char **value);

/* ---- what requests use where an argument is NULL ---- */

/* Whose prefix snapshots a request may use. */
typedef enum M1Sharing
{
	M1_SHARE_ROLE,				/* those of the same role in the same database */
	M1_SHARE_DATABASE,
	M1_SHARE_ALL
} M1Sharing;

/* What a scalar function does when its request fails. */
typedef enum M1OnError
{
	M1_ON_ERROR_RAISE,
	M1_ON_ERROR_NULL
} M1OnError;

extern int	m1pg_max_tokens;
extern int	m1pg_default_thinking_budget;
extern int	m1pg_prefix_cache_sharing;
extern int	m1pg_request_timeout;	/* ms; 0 = no limit */
extern double m1pg_temperature;
extern double m1pg_top_p;
extern char *m1pg_system_prompt;
extern char *m1pg_adapter;
/* What the model is called without an adapter. */
#define M1PG_BASE "base"
/* That the session's requests use; NULL = none. */
extern const char *m1pg_session_adapter(void);
extern int	m1pg_on_error;

/* ---- limits, and what counts usage ---- */

#define M1PG_MAX_TIERS			8
/* Settings of roles, which are read from the catalog: see quota.c. */
#define M1PG_QUOTA_TOKENS		"minimax_m1.quota_tokens_per_hour"
#define M1PG_QUOTA_CONCURRENT	"minimax_m1.quota_max_concurrent"
#define M1PG_SHARE				"minimax_m1.share"

extern int	m1pg_max_requests_per_session;	/* 0 = as many as a batch may want, and some */
extern int	m1pg_max_requests_per_role; /* 0 = as many as are left for others */
extern int	m1pg_unread_memory;		/* kB */
extern int	m1pg_unread_timeout;	/* ms */
extern int	m1pg_max_calls_per_statement;
extern int	m1pg_max_tokens_per_statement;
extern int	m1pg_max_usage_rows;
extern char *m1pg_context_tiers;

/* The lower bounds of minimax_m1.context_tiers; -1 when it is malformed. */
extern int	m1pg_parse_context_tiers(const char *setting, int32 tiers[M1PG_MAX_TIERS]);

/* ---- jobs ---- */

extern int	m1pg_job_requests;
extern int	m1pg_max_job_runners;
extern int	m1pg_job_lease;			/* s */
extern int	m1pg_job_retry_delay;	/* ms */
extern int	m1pg_job_write_timeout; /* ms */
extern int	m1pg_job_retention;		/* min; -1 = for ever */

/* ---- learning ---- */

extern int	m1pg_reward_timeout;	/* ms */

#endif							/* M1PG_SETTINGS_H */
