/*
 * quota.c
 *	  The quota of a role: tokens of an hour, and requests at the same time; and
 *	  its share where roles take turns.
 *
 *	  A quota is a setting of the role (ALTER ROLE ... SET, which set_quota()
 *	  does), so it is the same in all databases, is replicated, is dumped by
 *	  pg_dumpall and goes when the role goes. It is read from the catalog for each
 *	  request and not from the settings of the session: it holds for whoever the
 *	  request is charged to, after SET ROLE and in SECURITY DEFINER functions too,
 *	  and a change holds at once.
 *
 *	  A request is admitted if what it may take at most fits beside what was used
 *	  within the hour and what running requests may still take. So a quota is
 *	  never exceeded, whoever races for its last tokens; what a request does not
 *	  use is free again when it ends. The reservation is a field of the slot and
 *	  goes with it: it cannot be lost.
 */
#include "pg/usage/quota.h"
#include "pg/settings.h"
#include "pg/shared.h"
#include "pg/usage/usage.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_db_role_setting.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* At most, so that a quota is never exceeded: */
#define MOST_MARKUP		64		/* tokens of the chat markup around system prompt and user text */
#define MOST_TOOLS		512		/* of the words that introduce tools */

/* ---- what a role may ---- */

static bool
read_limit(const char *setting, const char *name, int64 *limit)
{
	Size		n = strlen(name);

	/* the setting's hook has checked the number */
	if (strncmp(setting, name, n) != 0 || setting[n] != '=')
		return false;
	if (setting[n + 1] != '\0')
		*limit = strtoll(setting + n + 1, NULL, 10);
	return true;
}

static void
read_settings(ArrayType *settings, M1Quota *quota)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;
	int64		share = 1;

	deconstruct_array(settings, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *setting = nulls[i] ? "" : TextDatumGetCString(values[i]);

		if (!read_limit(setting, M1PG_QUOTA_TOKENS, &quota->tokens_per_hour) &&
			!read_limit(setting, M1PG_QUOTA_CONCURRENT, &quota->max_concurrent))
			read_limit(setting, M1PG_SHARE, &share);
	}
	quota->share = (int) share;
}

void
m1pg_quota_of(Oid role, M1Quota *quota)
{
	char	   *name = GetUserNameFromId(role, true);
	Relation	rel = table_open(DbRoleSettingRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	quota->tokens_per_hour = quota->max_concurrent = -1;
	quota->share = 1;
	strlcpy(quota->role_name, name != NULL ? name : "", sizeof quota->role_name);
	ScanKeyInit(&keys[0], Anum_pg_db_role_setting_setdatabase, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(InvalidOid));
	ScanKeyInit(&keys[1], Anum_pg_db_role_setting_setrole, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(role));
	scan = systable_beginscan(rel, DbRoleSettingDatidRolidIndexId, true, NULL, 2, keys);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		settings = heap_getattr(tuple, Anum_pg_db_role_setting_setconfig, RelationGetDescr(rel), &isnull);

		if (!isnull)
			read_settings(DatumGetArrayTypeP(settings), quota);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* ---- what a request may take ---- */

/* Byte-level BPE: a text has no more tokens than bytes. JSON has more bytes than the markup it becomes has tokens. */
static int64
most_prompt(const m1w_generate *g)
{
	if (g->ids.len > 0)
		return (int64) g->ids.len;
	return (int64) (g->prompt.len + g->system.len + g->messages.len + g->tools.len) + MOST_MARKUP +
		(g->tools.len > 0 ? MOST_TOOLS : 0);
}

/* A longer prompt is refused, and a reply gets what is left. Not known until a model has been loaded. */
static int64
within_context(int64 tokens)
{
	int			context = m1pg_shared->model.context;

	return context > 0 ? Min(tokens, context) : tokens;
}

M1MostTokens
m1pg_most_tokens(const m1w_generate *g)
{
	int			closing = g->ids.len > 0 ? 0 : M1PG_MOST_CLOSING;

	return (M1MostTokens) {
		.all = within_context(most_prompt(g) + g->max_tokens) + closing,
		.reply = within_context(g->max_tokens) + closing
	};
}

M1MostTokens
m1pg_most_tokens_of_ids(Size n)
{
	return (M1MostTokens) {.all = within_context((int64) n)};
}

/* ---- admission ---- */

/* What requests of the role may still take, and how many there are. */
int64
m1pg_reserved_by(Oid role, int *running)
{
	int64		sum = 0;

	*running = 0;
	for (int i = 0; i < m1pg_shared->n_slots; i++)
	{
		const M1Slot *slot = &m1pg_shared->slots[i];

		if (slot->state == M1_SLOT_FREE || slot->userid != role)
			continue;
		sum += slot->reserved;
		(*running)++;
	}
	return sum;
}

static void
hint_when(const M1RoleHour *r, int64 minute, int64 room, int64 reserved, m1_error *error)
{
	int			wait = m1_hour_wait(&r->tokens, minute, room - reserved);

	/* room is what may have been used or reserved for the request to fit */
	if (room < 0)
		m1_error_hint(error, "It would never fit. Lower max_tokens (minimax_m1.max_tokens) by at least " INT64_FORMAT
					  ", or have the quota raised.", -room);
	else if (room < reserved || wait <= 0)
		m1_error_hint(error, "Try again when a running request of the role has ended, or ask for fewer tokens "
					  "(max_tokens, minimax_m1.max_tokens).");
	else
		m1_error_hint(error, "Try again in %d %s, or ask for fewer tokens (max_tokens, minimax_m1.max_tokens).",
					  wait, wait == 1 ? "minute" : "minutes");
}

static bool
admits_tokens(const M1Quota *quota, Oid role, int64 tokens, int64 reserved, m1_error *error)
{
	int64		minute = m1pg_minute(GetCurrentTimestamp());
	M1RoleHour *r = m1pg_role_hour(role, true);
	int64		used = m1_hour_used(&r->tokens, minute);
	bool		never;

	r->limited = 1;
	if (used + reserved + tokens <= quota->tokens_per_hour)
		return true;
	/* without a model's context, what the request may take is not known yet */
	never = tokens > quota->tokens_per_hour && m1pg_shared->model.context > 0;
	m1_fail(error, never ? M1_E_OVER_QUOTA : M1_E_OVERLOADED,
			"the token quota of role \"%s\" has no room for this request", quota->role_name);
	m1_error_detail(error, INT64_FORMAT " of " INT64_FORMAT " tokens were used within the hour, "
					"running requests may take " INT64_FORMAT " more, and this one up to " INT64_FORMAT ".",
					used, quota->tokens_per_hour, reserved, tokens);
	hint_when(r, minute, quota->tokens_per_hour - tokens, reserved, error);
	return false;
}

bool
m1pg_quota_admits(const M1Quota *quota, Oid role, int64 tokens, m1_error *error)
{
	int			running;
	int64		reserved;

	if (quota->tokens_per_hour < 0 && quota->max_concurrent < 0)
		return true;
	reserved = m1pg_reserved_by(role, &running);
	if (quota->max_concurrent >= 0 && running >= quota->max_concurrent)
	{
		m1_fail(error, M1_E_OVERLOADED, "role \"%s\" has as many requests as its quota allows", quota->role_name);
		m1_error_detail(error, "%d are running or waiting; " INT64_FORMAT " are allowed.",
						running, quota->max_concurrent);
		m1_error_hint(error, "%s", quota->max_concurrent == 0 ? "Have the quota raised: see minimax_m1.set_quota." :
					  "Try again when one of them has ended.");
		return false;
	}
	/* what costs no tokens is not refused for want of them */
	return quota->tokens_per_hour < 0 || tokens == 0 || admits_tokens(quota, role, tokens, reserved, error);
}
