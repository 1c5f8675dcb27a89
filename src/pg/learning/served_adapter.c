/*
 * served_adapter.c
 *	  Gives the engine adapters that are rows, when somebody wants to use them. The
 *	  engine knows each by its digest, keeps it until it ends, and never changes
 *	  it: a new version is another one, and who began with the old goes on with it.
 *
 *	  A session remembers what it has given to which engine.
 */
#include "pg/learning/served_adapter.h"
#include "pg/client/request.h"
#include "pg/client/texts.h"
#include "pg/jobs/guard.h"
#include "pg/learning/learn_calls.h"
#include "pg/report.h"
#include "pg/settings.h"
#include "pg/shared.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define DIGEST_SIZE 65			/* with its end */

/* ---- what was given ---- */

static List *given = NIL;		/* digests, in TopMemoryContext */
static int	given_to = 0;		/* the engine's process */

static bool
was_given(const char *digest)
{
	ListCell   *cell;

	if (given_to != m1pg_shared->model.readiness.pid)
	{
		list_free_deep(given);
		given = NIL;
		given_to = m1pg_shared->model.readiness.pid;
	}
	foreach(cell, given)
		if (strcmp(lfirst(cell), digest) == 0)
			return true;
	return false;
}

static void
note_given(const char *digest)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	given = lappend(given, pstrdup(digest));
	MemoryContextSwitchTo(old);
}

/* ---- messages ---- */

static const M1LearnCaller session = {.function = "serve_adapter"};

static void
put(const char *under, uint64 total, uint64 offset, m1_slice bytes)
{
	m1w_bytes	m = {.name = m1_slice_of(under), .total = total, .offset = offset, .bytes = bytes};
	m1_error	error;

	if (!m1pg_learn_put(&session, &m, &error))
		m1pg_report(&error);
}

/* Another session may have been faster, which is as good. false: there are no bytes of it. */
static bool
serve(const char *digest)
{
	m1_slice	name = m1_slice_of(digest);
	m1_error	error;

	if (m1pg_learn_serve(&session, name, name, &error) ||
		(error.code == M1_E_INVALID_ARGUMENT && strncmp(error.message, "there is an adapter", 19) == 0))
		return true;
	if (error.code != M1_E_NOT_FOUND)
		m1pg_report(&error);
	return false;
}

/* ---- rows ---- */

typedef struct Version
{
	int			id;
	char		digest[DIGEST_SIZE];
	m1_slice	config;			/* in UTF-8 */
	int64		bytes;
} Version;

#define FIND_SQL \
	"SELECT v.id, v.digest, v.config::text, v.bytes FROM minimax_m1.adapter_version v " \
	"WHERE v.name = $1 AND v.created_at <= $3 AND " \
	"(pg_has_role($2, v.owner::oid, 'USAGE') OR EXISTS (SELECT FROM minimax_m1.adapter_grant g " \
	"WHERE g.name = v.name AND pg_has_role($2, g.role::oid, 'USAGE'))) ORDER BY v.version DESC LIMIT 1"

/* With SPI connected, whose memory the version's is. */
static Version
find_version(const char *name, TimestampTz at)
{
	Oid			types[3] = {NAMEOID, OIDOID, TIMESTAMPTZOID};
	Datum		values[3] = {
		DirectFunctionCall1(namein, CStringGetDatum(name)), ObjectIdGetDatum(GetUserId()), TimestampTzGetDatum(at)
	};
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	Version		v = {0};
	bool		isnull;
	char	   *config;

	if (m1pg_query(FIND_SQL, 3, types, values, NULL, true) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("minimax_m1: adapter \"%s\" does not exist", name),
				 errhint("The view minimax_m1.adapter shows those that you may use.")));
	v.id = DatumGetInt32(m1pg_result(0, 1, &isnull));
	strlcpy(v.digest, m1pg_result_text(CurrentMemoryContext, 0, 2), sizeof v.digest);
	config = m1pg_result_text(CurrentMemoryContext, 0, 3);
	v.config = m1pg_to_utf8(config, strlen(config));
	v.bytes = DatumGetInt64(m1pg_result(0, 4, &isnull));
	m1pg_unbecome(&guard);
	return v;
}

/* NULL behind the last. */
static bytea *
read_piece(const Version *v, int piece)
{
	Oid			types[2] = {INT4OID, INT4OID};
	Datum		values[2] = {Int32GetDatum(v->id), Int32GetDatum(piece)};
	M1Guard		guard = m1pg_become(m1pg_extension_owner(), false);
	bytea	   *data = NULL;
	bool		isnull;

	if (m1pg_query("SELECT data FROM minimax_m1.adapter_piece WHERE adapter_id = $1 AND piece = $2",
				   2, types, values, NULL, true) > 0)
		data = DatumGetByteaPCopy(m1pg_result(0, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	m1pg_unbecome(&guard);
	return data;
}

/* ---- all of it ---- */

/* What comes before the numbers, in the form that the engine takes PEFT's two files in. */
static m1_slice
head_of(const Version *v)
{
	static const char magic[] = "m1peft01";
	uint32		n = (uint32) v->config.len;
	Size		len = strlen(magic) + sizeof n + n;
	char	   *head = palloc(len);

	memcpy(head, magic, strlen(magic));
	memcpy(head + strlen(magic), &n, sizeof n);
	memcpy(head + strlen(magic) + sizeof n, v->config.data, n);
	return (m1_slice) {head, len};
}

static void
put_all(const Version *v)
{
	m1_slice	head = head_of(v);
	uint64		total = head.len + (uint64) v->bytes;
	uint64		offset = head.len;
	bytea	   *data;

	put(v->digest, total, 0, head);
	for (int piece = 0; (data = read_piece(v, piece)) != NULL; piece++)
	{
		put(v->digest, total, offset, (m1_slice) {VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data)});
		offset += VARSIZE_ANY_EXHDR(data);
		pfree(data);
	}
}

/*
 * The server's other sessions, in whatever database, do not give the same meanwhile: they wait, and find it given. No
 * function of SQL takes such a lock, as it is of no database.
 */
static void
lock_giving(LOCKTAG *tag, const Version *v)
{
	SET_LOCKTAG_ADVISORY(*tag, InvalidOid, hash_bytes((const unsigned char *) v->digest, strlen(v->digest)), 0, 0);
	(void) LockAcquire(tag, ExclusiveLock, false, false);
}

/* Served from bytes of its own name: what was put of it before, and not served, is there once at most. */
static void
give(const Version *v)
{
	LOCKTAG		tag;

	lock_giving(&tag, v);
	if (!serve(v->digest))
	{
		put_all(v);
		if (!serve(v->digest))
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("minimax_m1: the engine has not kept the adapter that it was given"),
					 errhint("Try again.")));
	}
	LockRelease(&tag, ExclusiveLock, false);
}

m1_slice
m1pg_served_adapter_of(const char *name, TimestampTz at)
{
	MemoryContext caller = CurrentMemoryContext;
	Version		v;

	m1pg_require_shared();
	/* a server elsewhere has its own, and says so when it has none of the name */
	if (m1pg_engine_url[0] != '\0')
		return m1pg_to_utf8(pstrdup(name), strlen(name));
	SPI_connect();
	v = find_version(name, at);
	if (!was_given(v.digest))
	{
		give(&v);
		note_given(v.digest);
	}
	SPI_finish();
	return m1_slice_of(MemoryContextStrdup(caller, v.digest));
}

m1_slice
m1pg_served_adapter(const char *name)
{
	return m1pg_served_adapter_of(name, DT_NOEND);
}

void
m1pg_use_adapters(void)
{
	m1pg_find_adapter = m1pg_served_adapter;
}
